"""What the page needs: searches by a row or by an uploaded image, contact sheets, images."""

import tempfile
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field
from reidgallery import Gallery, MilvusGallery, SearchFilter
from reidgallery.input import UNLABELED
from reidruntime import Session
from reidruntime.images.depth import Depth

from reidexport.data.name_labels import time_from_name
from reidexport.data.records import pid_and_camid
from reidexport.errors import InputError
from reidexport.gallery.contact_sheets import answers_sheet
from reidexport.gallery.searching import Answer, answers_from_neighbors, seen_images
from reidexport.gallery.web.catalogue import Catalogue, catalogue_of
from reidexport.gallery.web.images import Pixels, shown_jpeg
from reidexport.records.embeddings import SeenImage

MAX_MATCHES, MAX_SHEET_MATCHES = 200, 20
MAX_NUMBER = 2**63 - 1  # of a row or a camera: they are int64


class SearchLimits(BaseModel, frozen=True):
    """What a search may find.

    Attributes:
        k: how many images.
        camids: only those of these cameras, from 0; None for all.
        other_cameras: only those of other cameras than the query's, where that is known.
        threshold: only those at this distance or less.
    """

    k: int = Field(10, ge=1, le=MAX_MATCHES)
    camids: frozenset[Annotated[int, Field(ge=0, le=MAX_NUMBER)]] | None = None
    other_cameras: bool = False
    threshold: float = np.inf


class Searcher:
    """An open gallery and, where one is given, the artifact that made it, for many threads: one searches at a time.

    Attributes:
        catalogue: the labels of the gallery.
        metric: how it measures distances.
        takes_uploads: whether uploaded images can be searched for.
        depth: what becomes of those of more than 8 bits a channel.
    """

    def __init__(self, gallery: Gallery | MilvusGallery, session: Session | None = None) -> None:
        """Read the labels.

        Args:
            gallery: to search; it must stay open as long as the searcher is used.
            session: of the artifact that made the gallery, open as long; None to refuse uploaded images.

        Raises:
            InputError: another artifact made the gallery, or it cannot be read.
        """
        if session is not None:
            gallery.check_artifact(session.manifest.sha256)
        self.catalogue: Catalogue = catalogue_of(gallery)
        self.metric, self.takes_uploads = gallery.metric, session is not None
        self.depth: Depth = session.depth if session else "refuse"
        self._gallery, self._session = gallery, session
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Search once, so that the first visitor does not wait for compiling and loading."""
        if len(self.catalogue.row_numbers):
            self.by_row(int(self.catalogue.row_numbers[0]), SearchLimits(k=1))
            if self._session is not None:
                camera = f"1_c{self._session.camids[0] + 1}" if self._session.camids else ""
                self.by_upload(np.zeros((2, 1, 3), np.uint8), camera, SearchLimits(k=1))

    def images(self, rows: NDArray[np.int64]) -> list[SeenImage]:
        """Some rows, as they are labeled; raises InputError where there is no such row."""
        for row in rows.tolist():
            if row not in self.catalogue:
                raise InputError(f"The gallery has no row {row}.")
        with self._lock:
            return seen_images(self._gallery, rows)

    def jpeg(self, row: int) -> bytes:
        """The image of a row, small, as a JPEG.

        Raises:
            InputError: there is no such row.
            ImageError: its file is missing or cannot be read.
        """
        (image,) = self.images(np.array([row]))
        return shown_jpeg(Path(image.path))

    def by_row(self, row: int, limits: SearchLimits) -> Answer:
        """Find the images nearest to one of the gallery, which is left out itself.

        Raises:
            InputError: there is no such row, or a filter needs cameras that are not known.
        """
        rows = np.array([row])
        (image,) = self.images(rows)
        with self._lock:
            return self._search(self._gallery.embeddings(rows), image, limits, row)

    def by_upload(self, pixels: Pixels, name: str, limits: SearchLimits) -> Answer:
        """Find the images nearest to an uploaded one: uint8 RGB, shape (height, width, 3).

        Its person, camera and time are read from its name, such as ``0002_c1s1_000451_03.jpg``.

        Raises:
            InputError: there is no artifact to embed it, or a filter needs cameras that are not known.
        """
        if self._session is None:
            raise InputError("Uploaded images must be embedded. Start the page with --artifact ARTIFACT.")
        pid, camid = pid_and_camid(name) or (None, None)
        with self._lock:
            camids = None
            if self._session.camids:
                self._session.check_camera(UNLABELED if camid is None else camid, name)
                camids = [UNLABELED if camid is None else camid]
            features = self._session.embed([pixels], camids=camids)
            return self._search(features, SeenImage(name, pid, camid, time_from_name(name)), limits)

    def _search(
        self, features: NDArray[np.float32], image: SeenImage, limits: SearchLimits, own_row: int = -1
    ) -> Answer:
        found = self._gallery.search(
            features,
            limits.k + 1,
            filter=SearchFilter(
                other_cameras=limits.other_cameras and image.camid is not None, among_camids=limits.camids
            ),
            camids=None if image.camid is None else [image.camid],
        )
        found.indices[found.indices == own_row] = -1
        images_of = partial(seen_images, self._gallery)
        (answer,) = answers_from_neighbors([image], found, images_of, limits.threshold)
        return replace(answer, hits=answer.hits[: limits.k])


def contact_sheet_of(answer: Answer, upload: Pixels | None) -> Image.Image:
    """Draw a query with the nearest ``MAX_SHEET_MATCHES`` of what was found.

    Args:
        answer: whose images are files.
        upload: the query, where it is not a file: uint8 RGB, shape (height, width, 3).

    Raises:
        ImageError: an image cannot be read.
        InputError: an image has no path.
    """
    num_ranks = max(1, min(len(answer.hits), MAX_SHEET_MATCHES))
    if upload is None:
        return answers_sheet([answer], num_ranks=num_ranks)
    with tempfile.TemporaryDirectory(prefix="reidexport-") as folder:
        file = Path(folder, "upload.png")
        Image.fromarray(upload).save(file)
        answer = replace(answer, query=replace(answer.query, path=str(file)))
        return answers_sheet([answer], num_ranks=num_ranks)
