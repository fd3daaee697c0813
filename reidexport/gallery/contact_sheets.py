"""Contact sheets of ranked lists: each row a query and the gallery images that come nearest to it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont
from reidgallery import Neighbors

from reidexport.data.records import ImageRecord
from reidexport.errors import ImageError, InputError

RIGHT_COLOR, WRONG_COLOR, QUERY_COLOR = "#1a9850", "#d73027", "#6b7280"
_PAPER, _INK, _SOFT_INK = "#ffffff", "#111827", "#6b7280"
_FRAME_PX, _GAP_PX, _MARGIN_PX, _LABEL_PX, _QUERY_GAP_PX = 4, 8, 20, 38, 26
_FONT_PX = 13


class Cell(NamedTuple):
    """One framed image: its file, the color of its frame, and the two lines under it."""

    path: Path
    color: str
    label: str
    note: str


def ranked_list_sheet(
    query: Sequence[ImageRecord],
    gallery: Sequence[ImageRecord],
    found: Neighbors,
    *,
    num_ranks: int = 10,
    height_px: int = 192,
) -> Image.Image:
    """Draw queries, a row each, with their nearest gallery images: green frames are right, red ones wrong.

    Under each image are its person, its camera (from 1) and its distance.

    Args:
        query: the queries to show.
        gallery: the gallery.
        found: the nearest gallery images of each query, as an evaluation finds them; see
            :meth:`reidexport.evaluation.scoring.Evaluation.nearest`.
        num_ranks: how many gallery images a row shows at most.
        height_px: of a thumbnail; its width is half of that.

    Returns:
        An RGB image; save it as PNG.

    Raises:
        ImageError: an image cannot be read.
        InputError: there is no query, or what was found is of other queries.
    """
    if not query or len(found.indices) != len(query):
        raise InputError(
            f"Expected neighbors of {len(query)} queries, and at least one query, got those of {len(found.indices)}."
        )
    rows = []
    for record, indices, distances in zip(query, *found, strict=True):
        row = [_cell(record, QUERY_COLOR, "")]
        for index, distance in list(zip(indices, distances, strict=True))[:num_ranks]:
            if index >= 0:
                color = RIGHT_COLOR if gallery[index].pid == record.pid else WRONG_COLOR
                row.append(_cell(gallery[index], color, f"{distance:.3f}"))
        rows.append(row)
    return contact_sheet(rows, num_ranks=num_ranks, height_px=height_px)


def contact_sheet(
    rows: Sequence[Sequence[Cell]], *, num_ranks: int = 10, height_px: int = 192
) -> Image.Image:
    """Draw rows of framed images: the query on the left, what was found beside it.

    Args:
        rows: for each query its own cell, then those of what was found, nearest first.
        num_ranks: how many columns there are for what was found; a row may have fewer.
        height_px: of a thumbnail; its width is half of that.

    Returns:
        An RGB image; save it as PNG.

    Raises:
        ImageError: an image cannot be read.
    """
    thumbnail = (height_px // 2, height_px)
    columns = [_left(rank, thumbnail[0]) for rank in range(num_ranks + 1)]
    row_px = height_px + 2 * _FRAME_PX + _LABEL_PX + _GAP_PX
    width = columns[-1] + thumbnail[0] + 2 * _FRAME_PX + _MARGIN_PX
    sheet = Image.new("RGB", (width, 2 * _MARGIN_PX + _LABEL_PX // 2 + row_px * len(rows)), _PAPER)
    _draw_heading(sheet, columns)
    for i, row in enumerate(rows):
        top = _MARGIN_PX + _LABEL_PX // 2 + i * row_px
        for left, cell in zip(columns, row, strict=False):
            _draw_cell(sheet, (left, top), cell, thumbnail)
    return sheet


def _cell(record: ImageRecord, color: str, note: str) -> Cell:
    return Cell(record.path, color, person_and_camera(record.pid, record.camid), note)


def person_and_camera(pid: int, camid: int) -> str:
    """The text under a labeled image; cameras count from 1 there."""
    return f"{pid:04d}  cam {camid + 1}"


def _left(rank: int, width: int) -> int:
    """The left edge of a column; the query's is a little apart."""
    return _MARGIN_PX + rank * (width + 2 * _FRAME_PX + _GAP_PX) + (_QUERY_GAP_PX if rank else 0)


def _draw_heading(sheet: Image.Image, columns: list[int]) -> None:
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_PX)
    for rank, left in enumerate(columns):
        draw.text((left + _FRAME_PX, _MARGIN_PX // 2), str(rank) if rank else "query", _SOFT_INK, font)


def _draw_cell(sheet: Image.Image, corner: tuple[int, int], cell: Cell, thumbnail: tuple[int, int]) -> None:
    left, top = corner
    width, height = thumbnail
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_PX)
    right, bottom = left + width + 2 * _FRAME_PX - 1, top + height + 2 * _FRAME_PX - 1
    draw.rectangle((left, top, right, bottom), fill=cell.color)
    small = rgb_image(cell.path).resize(thumbnail, Image.Resampling.LANCZOS)
    sheet.paste(small, (left + _FRAME_PX, top + _FRAME_PX))
    draw.text((left + _FRAME_PX, bottom + 3), cell.label, _INK, font)
    draw.text((left + _FRAME_PX, bottom + 3 + _FONT_PX), cell.note, _SOFT_INK, font)


def rgb_image(path: Path) -> Image.Image:
    """Open and decode an image.

    Raises:
        ImageError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:
        raise ImageError(f"{path}: cannot be read as an image ({error}).") from error
