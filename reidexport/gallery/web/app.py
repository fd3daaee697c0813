"""The page's requests: facts, people, images, searches and contact sheets."""

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from reidexport.data.records import DISTRACTOR_PID, JUNK_PID
from reidexport.data.times import time_text
from reidexport.errors import InputError, ReidExportError
from reidexport.gallery.searching import Answer, SeenImage
from reidexport.gallery.web.pictures import MAX_UPLOAD_MIB, Pixels, decode_upload
from reidexport.gallery.web.searcher import MAX_SHEET_MATCHES, Searcher, Wanted, contact_sheet_of

MAX_MATCHES = 200
_MAX_COUNT = 100  # images on one page
_MAX_NUMBER = 2**63 - 1
_HERE = Path(__file__).parent


class Asked(BaseModel):
    """What a search's address tells: ``row``, or the ``name`` of a picture that is the body, and what may be found."""

    row: int | None = Field(None, ge=0, le=_MAX_NUMBER)
    name: str = Field("the picture", max_length=255)
    k: int = Field(10, ge=1, le=MAX_MATCHES)
    camids: list[Annotated[int, Field(ge=0, le=_MAX_NUMBER)]] | None = None
    other_cameras: bool = False
    threshold: float | None = None

    def wanted(self) -> Wanted:
        """What may be found."""
        camids = None if self.camids is None else frozenset(self.camids)
        return Wanted(self.k, camids, self.other_cameras, self.threshold)


AskedQuery = Annotated[Asked, Query()]
Start = Annotated[int, Query(ge=0, le=_MAX_NUMBER)]
Count = Annotated[int, Query(ge=1, le=_MAX_COUNT)]


def page_app(searcher: Searcher, name: str, num_matches: int) -> FastAPI:
    """The app. It trusts whoever reaches it: put a :class:`reidexport.gallery.web.guard.Guard` before it.

    Args:
        searcher: what to search.
        name: what to call the gallery.
        num_matches: how many images the page asks for at first.
    """
    app = FastAPI(openapi_url=None)  # FastAPI's own pages load scripts from elsewhere
    app.mount("/static", StaticFiles(directory=_HERE / "static"))
    catalogue = searcher.catalogue

    @app.exception_handler(ReidExportError)
    def refuse(_: Request, error: ReidExportError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=400)

    @app.exception_handler(HTTPException)
    def refuse_politely(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, status_code=error.status_code)

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(_HERE / "page.html")

    @app.get("/gallery")
    def gallery() -> dict[str, Any]:
        return {
            "name": name,
            "num_images": len(catalogue.row_numbers),
            "num_people": sum(person.is_somebody for person in catalogue.people),
            "cameras": [{"camid": camid, "num_images": count} for camid, count in catalogue.cameras.items()],
            "all_cameras_known": sum(catalogue.cameras.values()) == len(catalogue.row_numbers),
            "metric": searcher.metric,
            "takes_pictures": searcher.takes_pictures,
            "num_matches": num_matches,
            "max_matches": MAX_MATCHES,
            "max_sheet_matches": MAX_SHEET_MATCHES,
            "max_upload_mib": MAX_UPLOAD_MIB,
        }

    @app.get("/people")
    def people(start: Start = 0, count: Count = 24, from_pid: int | None = None) -> dict[str, Any]:
        if from_pid is not None:
            start = catalogue.place_of(from_pid)
        shown = catalogue.people[start : start + count]
        firsts = [int(person.rows[0]) for person in shown]
        return {
            "start": start,
            "total": len(catalogue.people),
            "people": [
                {"place": place, "pid": person.pid, "num_images": len(person.rows), "image": image}
                for place, (person, image) in enumerate(
                    zip(shown, _images_as_json(searcher, firsts), strict=True), start
                )
            ],
        }

    @app.get("/people/{place}")
    def images_of(place: int, start: Start = 0, count: Count = 60) -> dict[str, Any]:
        if not 0 <= place < len(catalogue.people):
            raise InputError(f"The gallery has {len(catalogue.people)} people, and none at place {place}.")
        person = catalogue.people[place]
        rows = person.rows[start : start + count].tolist()
        return {
            "start": start,
            "total": len(person.rows),
            "pid": person.pid,
            "images": _images_as_json(searcher, rows),
        }

    @app.get("/images/{row}")
    def image(row: int) -> Response:
        return Response(searcher.jpeg(row), media_type="image/jpeg")

    @app.post("/search")
    async def search(request: Request, asked: AskedQuery) -> dict[str, Any]:
        body = await _bounded_body(request)
        return await run_in_threadpool(_found, searcher, asked, body)

    @app.post("/sheet")
    async def sheet(request: Request, asked: AskedQuery) -> Response:
        body = await _bounded_body(request)
        return Response(await run_in_threadpool(_sheet_png, searcher, asked, body), media_type="image/png")

    return app


async def _bounded_body(request: Request) -> bytes:
    body, size = bytearray(), 0
    try:
        # What is too much is read and dropped: a browser that is cut off while it sends shows no answer.
        async for chunk in request.stream():
            size += len(chunk)
            if size <= MAX_UPLOAD_MIB * 2**20:
                body += chunk
            else:
                body.clear()
    except ClientDisconnect as error:
        raise HTTPException(400, "The picture did not arrive whole. Send it again.") from error
    if size > MAX_UPLOAD_MIB * 2**20:
        raise HTTPException(
            413, f"The picture has more than {MAX_UPLOAD_MIB} MiB. Send a smaller one, or cut the person out."
        )
    return bytes(body)


def _answered(searcher: Searcher, asked: Asked, body: bytes) -> tuple[Answer, Pixels | None]:
    """What was found, and the picture that was searched for."""
    if asked.row is not None:
        return searcher.by_row(asked.row, asked.wanted()), None
    if not body:
        raise InputError("There is nothing to search for: choose an image of the gallery, or a picture.")
    picture = decode_upload(body, asked.name)
    return searcher.by_picture(picture, asked.name, asked.wanted()), picture


def _found(searcher: Searcher, asked: Asked, body: bytes) -> dict[str, Any]:
    started = time.perf_counter()
    answer, _ = _answered(searcher, asked, body)
    seconds = time.perf_counter() - started
    return {
        "query": _as_json(answer.query, asked.row),
        "hits": [
            {
                **_as_json(hit, hit.row),
                "rank": hit.rank,
                "distance": hit.distance,
                "is_same_person": _is_same_person(answer.query, hit),
            }
            for hit in answer.hits
        ],
        "ms": 1000 * seconds,
    }


def _sheet_png(searcher: Searcher, asked: Asked, body: bytes) -> bytes:
    buffer = io.BytesIO()
    contact_sheet_of(*_answered(searcher, asked, body)).save(buffer, "PNG")
    return buffer.getvalue()


def _images_as_json(searcher: Searcher, rows: Sequence[int]) -> list[dict[str, Any]]:
    images = searcher.images(np.array(rows, np.int64))
    return [_as_json(image, row) for image, row in zip(images, rows, strict=True)]


def _as_json(image: SeenImage, row: int | None) -> dict[str, Any]:
    path = Path(image.path)
    return {
        "row": row,
        "path": image.path,
        "pid": image.pid,
        "camid": image.camid,
        "time": None if image.time is None else f"time {time_text(image.time)}",
        "has_file": bool(image.path) and path.is_file(),
    }


def _is_same_person(query: SeenImage, hit: SeenImage) -> bool | None:
    """None where that is not known: distractors and junk are nobody in particular."""
    if query.pid is None or query.pid <= DISTRACTOR_PID or hit.pid in (None, JUNK_PID):
        return None
    return hit.pid == query.pid
