"""Contact sheets of ranked lists: each row a query and the gallery images that come nearest to it."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps
from reidgallery import Neighbors
from reidgallery.input import UNLABELED
from reidruntime.images.preprocess import decode_image

from reidexport.data.records import ImageRecord
from reidexport.errors import InputError
from reidexport.gallery.searching import Answer, answers_from_neighbors
from reidexport.records.embeddings import SeenImage

_RIGHT_COLOR, _WRONG_COLOR, _QUERY_COLOR = "#1a9850", "#d73027", "#6b7280"
_PAPER, _INK, _SOFT_INK = "#ffffff", "#111827", "#6b7280"
_FRAME_PX, _GAP_PX, _MARGIN_PX, _LABEL_PX, _QUERY_GAP_PX = 4, 8, 20, 38, 26
_FONT_PX = 13
_LABEL_LENGTH = 14  # letters that fit under a thumbnail


def ranked_list_sheet(
    query: Sequence[ImageRecord],
    gallery: Sequence[ImageRecord],
    found: Neighbors,
    *,
    num_ranks: int = 10,
    height_px: int = 192,
) -> Image.Image:
    """Draw queries of an evaluation with their nearest gallery images, as :func:`answers_sheet` does.

    Args:
        query: the queries to show.
        gallery: the gallery.
        found: the nearest gallery images of each query, as an evaluation finds them; see
            :meth:`reidexport.evaluation.scoring.Evaluation.nearest`.
        num_ranks: how many gallery images a row shows at most.
        height_px: of a thumbnail; its width is half of that.

    Raises:
        ImageError: an image cannot be read.
        InputError: there is no query, or what was found is of other queries.
    """
    if not query or len(found.indices) != len(query):
        raise InputError(
            f"Expected neighbors of {len(query)} queries, and at least one query, got those of {len(found.indices)}."
        )

    def seen(records: Iterable[ImageRecord]) -> list[SeenImage]:
        return [SeenImage(str(record.path), record.pid, record.camid) for record in records]

    answers = answers_from_neighbors(seen(query), found, lambda rows: seen(gallery[row] for row in rows))
    return answers_sheet(answers, num_ranks=num_ranks, height_px=height_px)


def answers_sheet(answers: Sequence[Answer], *, num_ranks: int, height_px: int = 192) -> Image.Image:
    """Draw queries, a row each, with what was found: green frames are the query's person, red ones another.

    Frames are gray where a person is not known. Under each image are its person and its camera (from 1), or its name
    where these are not known, and its distance.

    Args:
        answers: the queries, on the left, and what was found beside them, nearest first.
        num_ranks: how many columns there are for what was found.
        height_px: of a thumbnail; its width is half of that.

    Returns:
        An RGB image; save it as PNG.

    Raises:
        ImageError: an image cannot be read.
        InputError: an image has no path.
    """
    thumbnail = (height_px // 2, height_px)
    column_px = thumbnail[0] + 2 * _FRAME_PX + _GAP_PX  # but for the query's, which is a little apart
    columns = [
        _MARGIN_PX + rank * column_px + (_QUERY_GAP_PX if rank else 0) for rank in range(num_ranks + 1)
    ]
    row_px = height_px + 2 * _FRAME_PX + _LABEL_PX + _GAP_PX
    width = columns[-1] + thumbnail[0] + 2 * _FRAME_PX + _MARGIN_PX
    sheet = Image.new("RGB", (width, 2 * _MARGIN_PX + _LABEL_PX // 2 + row_px * len(answers)), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_PX)
    for rank, left in enumerate(columns):
        draw.text((left + _FRAME_PX, _MARGIN_PX // 2), str(rank) if rank else "query", _SOFT_INK, font)
    for i, answer in enumerate(answers):
        top = _MARGIN_PX + _LABEL_PX // 2 + i * row_px
        for left, (image, color, note) in zip(columns, _framed_images(answer), strict=False):
            if not image.path:
                raise InputError(
                    "A contact sheet shows image files, but an image of the gallery has no path."
                )
            small = rgb_image(Path(image.path)).resize(thumbnail, Image.Resampling.LANCZOS)
            framed = ImageOps.expand(small, _FRAME_PX, color)
            sheet.paste(framed, (left, top))
            under = top + framed.height + 2
            draw.text((left + _FRAME_PX, under), _label(image), _INK, font)
            draw.text((left + _FRAME_PX, under + _FONT_PX), note, _SOFT_INK, font)
    return sheet


def _framed_images(answer: Answer) -> Iterator[tuple[SeenImage, str, str]]:
    """The query and its hits, the color of each one's frame, and a note."""
    yield answer.query, _QUERY_COLOR, ""
    for hit in answer.hits:
        known = answer.query.pid is not None and hit.pid is not None
        color = _RIGHT_COLOR if hit.pid == answer.query.pid else _WRONG_COLOR
        yield hit, color if known else _QUERY_COLOR, f"{hit.distance:.3f}"


def _label(image: SeenImage) -> str:
    if image.pid is None or image.camid is None:
        return Path(image.path).stem[-_LABEL_LENGTH:]
    return person_and_camera(image.pid, image.camid)


def person_and_camera(pid: int, camid: int) -> str:
    """The text under an image of a known person; cameras count from 1 there."""
    return f"{pid:04d}" + (f"  cam {camid + 1}" if camid != UNLABELED else "")


def rgb_image(path: Path) -> Image.Image:
    """An image as the runtime decodes it; raises ImageError where it cannot be read."""
    return Image.fromarray(decode_image(path, depth="scale"))
