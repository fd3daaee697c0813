"""The page's requests: facts, people, images, searches and contact sheets."""

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import Field
from starlette.requests import ClientDisconnect

from reidexport.data.records import DISTRACTOR_PID, JUNK_PID
from reidexport.data.times import time_text
from reidexport.errors import InputError, ReidExportError
from reidexport.gallery.searching import Answer
from reidexport.gallery.web.images import MAX_UPLOAD_MIB, Pixels, decode_upload
from reidexport.gallery.web.searcher import (
    MAX_MATCHES,
    MAX_NUMBER,
    MAX_SHEET_MATCHES,
    Searcher,
    SearchLimits,
    contact_sheet_of,
)
from reidexport.records.embeddings import SeenImage

_MAX_COUNT = 100  # images on one page
_FOLDER = Path(__file__).parent


class SearchRequest(SearchLimits, frozen=True):
    """A search's query string: ``row``, or the ``name`` of the image that is the body, and what may be found."""

    row: int | None = Field(None, ge=0, le=MAX_NUMBER)
    name: str = Field("the image", max_length=255)


def page_app(searcher: Searcher, name: str, num_matches: int) -> FastAPI:
    """The app. It trusts whoever reaches it: put a :class:`reidexport.gallery.web.guard.Guard` before it.

    Args:
        searcher: what to search.
        name: what to call the gallery.
        num_matches: how many images the page asks for at first.
    """
    app = FastAPI(openapi_url=None)  # FastAPI's own pages load scripts from elsewhere
    app.state.searcher = searcher
    app.state.facts = _gallery_facts(searcher, name, num_matches)
    app.mount("/static", StaticFiles(directory=_FOLDER / "static"))
    app.include_router(_routes)
    app.add_exception_handler(ReidExportError, _refuse)
    app.add_exception_handler(HTTPException, _refuse)
    return app


def _gallery_facts(searcher: Searcher, name: str, num_matches: int) -> dict[str, Any]:
    catalogue = searcher.catalogue
    return {
        "name": name,
        "num_images": len(catalogue.row_numbers),
        "num_people": sum(person.is_somebody for person in catalogue.people),
        "cameras": [{"camid": camid, "num_images": count} for camid, count in catalogue.cameras.items()],
        "all_cameras_known": sum(catalogue.cameras.values()) == len(catalogue.row_numbers),
        "metric": searcher.metric,
        "takes_uploads": searcher.takes_uploads,
        "num_matches": num_matches,
        "max_matches": MAX_MATCHES,
        "max_sheet_matches": MAX_SHEET_MATCHES,
        "max_upload_mib": MAX_UPLOAD_MIB,
    }


def _refuse(_: Request, error: Exception) -> JSONResponse:
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code)
    return JSONResponse({"error": str(error)}, 400)


async def _app_searcher(request: Request) -> Searcher:
    searcher: Searcher = request.app.state.searcher
    return searcher


_routes = APIRouter()
_Searcher = Annotated[Searcher, Depends(_app_searcher)]
_SearchRequest = Annotated[SearchRequest, Query()]
_Start = Annotated[int, Query(ge=0, le=MAX_NUMBER)]
_Count = Annotated[int, Query(ge=1, le=_MAX_COUNT)]


@_routes.get("/")
def _get_page() -> FileResponse:
    return FileResponse(_FOLDER / "page.html")


@_routes.get("/gallery")
def _get_gallery(request: Request) -> dict[str, Any]:
    facts: dict[str, Any] = request.app.state.facts
    return facts


@_routes.get("/people")
def _get_people(
    searcher: _Searcher, start: _Start = 0, count: _Count = 24, from_pid: int | None = None
) -> dict[str, Any]:
    catalogue = searcher.catalogue
    if from_pid is not None:
        start = catalogue.place_of(from_pid)
    shown = catalogue.people[start : start + count]
    images = _images_as_json(searcher, [int(person.rows[0]) for person in shown])
    return {
        "start": start,
        "total": len(catalogue.people),
        "people": [
            {"place": place, "pid": person.pid, "num_images": len(person.rows), "image": image}
            for place, (person, image) in enumerate(zip(shown, images, strict=True), start)
        ],
    }


@_routes.get("/people/{place}")
def _get_images_of_person(
    searcher: _Searcher, place: int, start: _Start = 0, count: _Count = 60
) -> dict[str, Any]:
    people = searcher.catalogue.people
    if not 0 <= place < len(people):
        raise InputError(f"The gallery has {len(people)} people, and none at place {place}.")
    person = people[place]
    rows = person.rows[start : start + count].tolist()
    return {
        "start": start,
        "total": len(person.rows),
        "pid": person.pid,
        "images": _images_as_json(searcher, rows),
    }


@_routes.get("/images/{row}")
def _get_image(searcher: _Searcher, row: int) -> Response:
    return Response(searcher.jpeg(row), media_type="image/jpeg")


async def _bounded_body(request: Request) -> bytes:
    body, size = bytearray(), 0
    try:
        # The excess is read and dropped: a browser that is cut off while it sends shows no answer.
        async for chunk in request.stream():
            size += len(chunk)
            if size <= MAX_UPLOAD_MIB * 2**20:
                body += chunk
            else:
                body.clear()
    except ClientDisconnect as error:
        raise HTTPException(400, "The image did not arrive completely. Send it again.") from error
    if size > MAX_UPLOAD_MIB * 2**20:
        raise HTTPException(
            413,
            f"The image has more than {MAX_UPLOAD_MIB} MiB. Send a smaller one, or crop it to the person.",
        )
    return bytes(body)


_Body = Annotated[bytes, Depends(_bounded_body)]


@_routes.post("/search")
def _post_search(searcher: _Searcher, search: _SearchRequest, body: _Body) -> dict[str, Any]:
    started = time.perf_counter()
    answer, _ = _search(searcher, search, body)
    seconds = time.perf_counter() - started
    return {
        "query": _image_as_json(answer.query, search.row),
        "hits": [
            {**_image_as_json(hit, hit.row), "is_same_person": _is_same_person(answer.query, hit)}
            for hit in answer.hits
        ],
        "ms": 1000 * seconds,
    }


@_routes.post("/sheet")
def _post_sheet(searcher: _Searcher, search: _SearchRequest, body: _Body) -> Response:
    buffer = io.BytesIO()
    contact_sheet_of(*_search(searcher, search, body)).save(buffer, "PNG")
    return Response(buffer.getvalue(), media_type="image/png")


def _search(searcher: Searcher, search: SearchRequest, body: bytes) -> tuple[Answer, Pixels | None]:
    """What was found, and the uploaded image that was searched for."""
    if search.row is not None:
        return searcher.by_row(search.row, search), None
    if not body:
        raise InputError("There is nothing to search for. Choose an image of the gallery, or upload one.")
    upload = decode_upload(body, search.name, searcher.depth)
    return searcher.by_upload(upload, search.name, search), upload


def _images_as_json(searcher: Searcher, rows: Sequence[int]) -> list[dict[str, Any]]:
    images = searcher.images(np.array(rows, np.int64))
    return [_image_as_json(image, row) for image, row in zip(images, rows, strict=True)]


def _image_as_json(image: SeenImage, row: int | None) -> dict[str, Any]:
    time = None if image.time is None else f"time {time_text(image.time)}"
    has_file = bool(image.path) and Path(image.path).is_file()
    return {**vars(image), "row": row, "time": time, "has_file": has_file}


def _is_same_person(query: SeenImage, hit: SeenImage) -> bool | None:
    """None where that is not known: distractors and junk are nobody in particular."""
    if query.pid is None or query.pid <= DISTRACTOR_PID or hit.pid in (None, JUNK_PID):
        return None
    return hit.pid == query.pid
