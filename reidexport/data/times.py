"""Times of images as people write them: a number of any clock, or a date for milliseconds since 1970."""

from datetime import UTC, datetime, timedelta

from reidexport.errors import InputError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_FIRST_DATE = 10**11  # 1973 in milliseconds; clocks that count frames do not get that far
_LAST_DATE = 253_402_300_799_999  # the end of the year 9999


def parse_time(text: str, option: str) -> int:
    """``"2000451"`` as it is; ``"2026-11-25T16:00"`` (UTC, unless it says otherwise) as milliseconds since 1970.

    Raises:
        InputError: it is neither; ``option`` is where it was passed.
    """
    if text.isdecimal():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            f"{option} {text!r}: expected a number, or a date such as 2026-11-25 or 2026-11-25T16:00+01:00."
        ) from error
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND


def time_text(time: int | None) -> str:
    """For people: ``-`` where it is not known, a date where it can be one, else the number."""
    if time is None:
        return "-"
    if not _FIRST_DATE <= time <= _LAST_DATE:
        return str(time)
    return f"{(_EPOCH + time * _MILLISECOND).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
