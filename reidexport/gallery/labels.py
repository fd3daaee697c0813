"""The labels of a gallery, some rows at a time."""

from collections.abc import Iterator

from reidgallery import Gallery, MilvusGallery
from reidgallery.input import RowLabels

_ROWS_AT_ONCE = 2**14


def label_parts(gallery: Gallery | MilvusGallery) -> Iterator[RowLabels]:
    """The labels of all rows, in order; errors are the gallery's."""
    rows = gallery.row_numbers()
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield gallery.labels(rows[start : start + _ROWS_AT_ONCE])
