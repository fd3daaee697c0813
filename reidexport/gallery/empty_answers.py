"""Why a search found nothing: which part of the filter leaves no row, and what rows there are."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from reidgallery import Gallery, MilvusGallery, SearchFilter
from reidgallery.input import UNLABELED

from reidexport.data.times import time_text
from reidexport.gallery.labels import label_parts
from reidexport.gallery.searching import Answer

_MAX_LISTED = 20
Ints = NDArray[np.int64]


def why_empty(
    gallery: Gallery | MilvusGallery, answers: Sequence[Answer], filter: SearchFilter, threshold: float
) -> str | None:
    """In a sentence, why some queries found nothing; None where all found something. Errors are the gallery's.

    Args:
        gallery: that was searched.
        answers: of the search.
        filter: of the search.
        threshold: of the search.
    """
    q_camids = [answer.query.camid for answer in answers if not answer.hits]
    if not q_camids:
        return None
    parts = list(label_parts(gallery))
    if not parts:
        reason = "the gallery is empty"
    else:
        camids, times = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("camids", "times")
        )
        reason = _reason(camids, times, filter, q_camids) or f"no row is at distance {threshold:g} or less"
    return f"{len(q_camids)} of {len(answers)} queries found nothing: {reason}."


def _reason(camids: Ints, times: Ints, filter: SearchFilter, q_camids: Sequence[int | None]) -> str:
    """What of a filter leaves no row of those with these labels; empty where it leaves some."""
    left, reasons = np.ones(len(camids), np.bool_), []
    if filter.among_camids is not None:
        left = np.isin(camids, list(filter.among_camids))
        if not left.any():
            wanted, known = _cameras(sorted(filter.among_camids)), _cameras(np.unique(camids).tolist())
            reasons.append(f"no row is of camera {wanted}, the gallery has {known}")
    if (filter.since, filter.until) != (None, None):
        in_time = times >= (0 if filter.since is None else filter.since)
        if filter.until is not None:
            in_time &= times <= filter.until
        if not in_time.any():
            window = " ".join(
                f"{word} {time_text(time)}"
                for word, time in (("since", filter.since), ("until", filter.until))
                if time is not None
            )
            clock = f"{time_text(int(times.min()))} to {time_text(int(times.max()))}"
            reasons.append(f"no row is of a time {window}, the gallery's clock spans {clock}")
        left &= in_time
    if not reasons and not left.any():
        reasons.append("rows are of these cameras or of this time, but none of both")
    own = set(np.unique(camids[left]).tolist())
    if not reasons and filter.other_cameras and any(own <= {camid} for camid in q_camids):
        reasons.append(f"all rows that may be found are of the query's own camera ({_cameras(sorted(own))})")
    return "; ".join(reasons)


def _cameras(camids: Iterable[int]) -> str:
    """Cameras as in names, from 1."""
    texts = [str(camid + 1) for camid in camids if camid != UNLABELED]
    return ", ".join(texts[:_MAX_LISTED]) + (", …" if len(texts) > _MAX_LISTED else "")
