"""Times: what names tell, what users write, and what they are shown."""

import pytest
from reidgallery.input import UNLABELED

from reidexport.data.name_labels import labels_from_names
from reidexport.data.times import parse_time, time_text
from reidexport.errors import InputError


def test_names_tell_persons_cameras_and_times() -> None:
    """Market-1501's sequence and frame, DukeMTMC-reID's frame, and milliseconds; other names tell nothing."""
    names = {
        "a/0002_c1s2_000451_03.jpg": (2, 0, 2000451),
        "-1_c3s1_000003_00.jpg": (-1, 2, 1000003),
        "0001_c2_f0046182.jpg": (1, 1, 46182),
        "0001_c2_t1764086400000_7.png": (1, 1, 1764086400000),
        "0001_c2_000451.jpg": (1, 1, UNLABELED),
        "0001_c2s1_00045.jpg": (1, 1, UNLABELED),
        "0001_c2s1_0004511.jpg": (1, 1, UNLABELED),
        f"{10**19}_c1s1_000001_00.jpg": (UNLABELED, UNLABELED, 1000001),
        f"0001_c{10**19}.jpg": (UNLABELED, UNLABELED, UNLABELED),
        f"0001_c2s{10**19}_000001_00.jpg": (1, 1, UNLABELED),
        "street_t5.jpg": (UNLABELED, UNLABELED, UNLABELED),
    }
    assert list(zip(*labels_from_names(list(names)).tolist(), strict=True)) == list(names.values())
    assert labels_from_names([]).shape == (3, 0)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2000451", 2000451),
        ("2025-11-25T16:00", 1764086400000),
        ("2025-11-25T17:00:00.250+01:00", 1764086400250),
        ("2025-11-25T16:00Z", 1764086400000),
        ("1970-01-01", 0),
    ],
)
def test_numbers_and_dates_are_read(text: str, time: int) -> None:
    """A number stays, a date becomes milliseconds since 1970, in UTC unless it says otherwise."""
    assert parse_time(text, "--since") == time


@pytest.mark.parametrize("text", ["yesterday", "-5", "1e3", ""])
def test_other_texts_are_refused(text: str) -> None:
    """What is neither is an error that names the option and shows a date."""
    with pytest.raises(InputError, match=r"--since .*: expected a number, or a date such as 2026-11-25"):
        parse_time(text, "--since")


def test_times_are_shown_as_what_they_can_be() -> None:
    """Dates for milliseconds, numbers for frames, a dash where nothing is known."""
    shown = [time_text(time) for time in (None, 0, 2000451, 1764086400250, 10**18)]
    assert shown == ["-", "0", "2000451", "2025-11-25T16:00:00.250Z", str(10**18)]
