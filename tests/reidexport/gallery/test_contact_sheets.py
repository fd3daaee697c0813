from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reidgallery import Neighbors

from reidexport.data import ImageRecord
from reidexport.errors import ImageError, InputError
from reidexport.gallery.contact_sheets import ranked_list_sheet

GREEN, RED, GRAY = (26, 152, 80), (215, 48, 39), (107, 114, 128)


@pytest.fixture
def records(tmp_path: Path) -> list[ImageRecord]:
    """A query of person 1 by camera 0, and a gallery: its own camera's image, junk, a match, others."""
    labels = [(1, 0), (1, 0), (-1, 1), (1, 1), (2, 1), (0, 2)]
    images = []
    for number, (pid, camid) in enumerate(labels):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (64, 128), (250, 250, 40 * number)).save(path)
        images.append(ImageRecord(path, pid, camid))
    return images


def frames(sheet: Image.Image, height: int) -> list[tuple[int, ...]]:
    """The colors met along the upper edge of the frames, white and repetitions left out."""
    row = 20 + 19 + 1
    pixels = [sheet.getpixel((x, row)) for x in range(sheet.width)]
    colors = [p for i, p in enumerate(pixels) if p != (255, 255, 255) and (i == 0 or pixels[i - 1] != p)]
    return [tuple(color) for color in colors if isinstance(color, tuple)]


def neighbors(indices: list[list[int]]) -> Neighbors:
    """Gallery images of each query, all at one distance."""
    return Neighbors(
        np.array(indices, np.int64).reshape(len(indices), 5), np.zeros((len(indices), 5), np.float32)
    )


def test_right_is_green_wrong_is_red_and_junk_is_not_shown(records: list[ImageRecord]) -> None:
    """The nearest images come in order with the color of their answer; what the metrics ignore has no row."""
    query, gallery = records[:1], records[1:]
    sheet = ranked_list_sheet(query, gallery, neighbors([[4, 3, 2, -1, -1]]), height_px=64)
    assert frames(sheet, 64) == [GRAY, RED, RED, GREEN]
    assert sheet.mode == "RGB"


def test_size_follows_rows_and_ranks(records: list[ImageRecord]) -> None:
    """One row per query and one column per rank, however few images the gallery holds."""
    gallery = records[1:]
    one = ranked_list_sheet(records[:1], gallery, neighbors([[0, 1, 2, 3, 4]]), num_ranks=3, height_px=64)
    two = ranked_list_sheet(
        records[:1] * 2, gallery, neighbors([[0, 1, 2, 3, 4]] * 2), num_ranks=4, height_px=64
    )
    assert two.height - one.height == 64 + 2 * 4 + 38 + 8
    assert two.width - one.width == 32 + 2 * 4 + 8


def test_neighbors_must_fit(records: list[ImageRecord]) -> None:
    """What was found for other queries, or no query at all, is refused."""
    with pytest.raises(InputError, match="neighbors of 1 queries, and at least one query, got those of 2"):
        ranked_list_sheet(records[:1], records[1:], neighbors([[0, 1, 2, 3, 4]] * 2))
    with pytest.raises(InputError, match=r"at least one query"):
        ranked_list_sheet([], records, neighbors([]))


def test_a_bad_image_is_named(records: list[ImageRecord]) -> None:
    """A file that is no image is named."""
    records[3].path.write_text("no image")
    with pytest.raises(ImageError, match=r"3\.png: not an image that Pillow can read"):
        ranked_list_sheet(records[:1], records[1:], neighbors([[0, 1, 2, 3, 4]]))
