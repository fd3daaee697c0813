"""What the page's server answers: searches, filters, people, images, sheets, and refusals."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from reidgallery import Gallery, MilvusGallery, SearchFilter
from reidruntime import Session, open_session

from reidexport.data import Dataset
from reidexport.embed.files import add_embeddings, gallery_from_manifest
from reidexport.gallery.web.searcher import Searcher
from tests.conftest import Exported
from tests.reidexport.gallery.web.conftest import Site, served
from tests.standins.camera_profiles import small_profile, write_profile


@pytest.fixture
def visitor(site: Site) -> Iterator[httpx.Client]:
    """A visitor of the drawn people's page."""
    with site.client() as client:
        yield client


def somebody(gallery: Gallery) -> int:
    """A row that shows a person."""
    return int(np.flatnonzero(gallery.pids > 0)[0])


@pytest.mark.parametrize("camids", [[], [0], [1, 2]])
@pytest.mark.parametrize("other_cameras", [False, True])
def test_an_image_of_the_gallery_finds_the_others(
    visitor: httpx.Client, people: Gallery, camids: list[int], other_cameras: bool
) -> None:
    """As the gallery answers with the image itself left out, under every filter."""
    row = somebody(people)
    asked: dict[str, object] = {"row": row, "k": 7, "other_cameras": other_cameras}
    answer = visitor.post("/search", params={**asked, "camids": camids}).json()
    expected = people.search(
        people.embeddings(np.array([row])),
        len(people),
        filter=SearchFilter(other_cameras=other_cameras, among_camids=camids or None),
        camids=people.camids[[row]],
    )
    rows = [r for r in expected.indices[0].tolist() if r not in (row, -1)][:7]
    distances = dict(zip(expected.indices[0].tolist(), expected.distances[0].tolist(), strict=True))
    assert [hit["row"] for hit in answer["hits"]] == rows
    assert [hit["rank"] for hit in answer["hits"]] == list(range(1, len(rows) + 1))
    assert [hit["distance"] for hit in answer["hits"]] == [distances[r] for r in rows]
    assert answer["query"]["row"] == row
    for hit in answer["hits"]:
        assert (hit["pid"], hit["camid"]) == (people.pids[hit["row"]], people.camids[hit["row"]])
        assert hit["path"] == people.paths[hit["row"]]
        assert hit["has_file"]


def test_an_upload_finds_what_the_session_finds(
    visitor: httpx.Client, people: Gallery, session: Session, drawn_dataset: Dataset
) -> None:
    """Sent as bytes, it has the neighbors of the file, and the person and camera that its name tells."""
    query = drawn_dataset.query[0]
    answer = visitor.post(
        "/search", params={"name": query.path.name, "k": 5}, content=query.path.read_bytes()
    ).json()
    expected = people.search(session.embed([query.path]), 5)
    assert [hit["row"] for hit in answer["hits"]] == expected.indices[0].tolist()
    assert [hit["distance"] for hit in answer["hits"]] == expected.distances[0].tolist()
    assert (answer["query"]["pid"], answer["query"]["camid"]) == (query.pid, query.camid)
    same = [hit["is_same_person"] for hit in answer["hits"]]
    assert same == [None if hit["pid"] == -1 else hit["pid"] == query.pid for hit in answer["hits"]]


def test_an_upload_of_an_unknown_camera_is_compared_with_all(
    visitor: httpx.Client, drawn_dataset: Dataset
) -> None:
    """Other cameras than an unknown one cannot be told: the filter is left out, and the answer says unknown."""
    data = drawn_dataset.query[0].path.read_bytes()
    asked = {"name": "street.jpg", "k": 5}
    plain = visitor.post("/search", params=asked, content=data).json()
    other = visitor.post("/search", params={**asked, "other_cameras": True}, content=data).json()
    assert plain["query"] == {
        "row": None,
        "path": "street.jpg",
        "pid": None,
        "camid": None,
        "time": None,
        "has_file": False,
    }
    assert [hit["row"] for hit in other["hits"]] == [hit["row"] for hit in plain["hits"]]
    assert {hit["is_same_person"] for hit in plain["hits"]} == {None}


def test_an_upload_is_standardized_by_its_camera(
    exported: Exported, drawn_dataset: Dataset, tmp_path: Path
) -> None:
    """The camera is that of the upload's name; without one it is refused, as the profile has no camera for it."""
    artifact = Path(shutil.copy(exported.onnx, tmp_path))
    cameras = write_profile(small_profile(artifact, 512, range(6)), artifact)
    query, shown = drawn_dataset.query[0], drawn_dataset.gallery[:8]
    with open_session(artifact, cameras=cameras) as session:
        gallery = gallery_from_manifest(session.manifest)
        paths = [str(record.path) for record in shown]
        add_embeddings(gallery, session.embed(paths, camids=[record.camid for record in shown]), paths)
        expected = gallery.search(session.embed([query.path], camids=[query.camid]), 5)
        data = query.path.read_bytes()
        with served(Searcher(gallery, session)) as site, site.client() as visitor:
            hits = visitor.post("/search", params={"name": query.path.name, "k": 5}, content=data).json()[
                "hits"
            ]
            refused = visitor.post("/search", params={"name": "street.jpg", "k": 5}, content=data)
    assert [hit["row"] for hit in hits] == expected.indices[0].tolist()
    assert [hit["distance"] for hit in hits] == pytest.approx(expected.distances[0].tolist(), abs=1e-6)
    assert refused.status_code == 400
    assert "street.jpg does not tell its camera" in refused.text


def test_distractors_and_junk_are_nobodys_match(visitor: httpx.Client, people: Gallery) -> None:
    """Two distractors are not the same person, nor are two pieces of junk."""
    for pid in (0, -1):
        row = int(np.flatnonzero(people.pids == pid)[0])
        hits = visitor.post("/search", params={"row": row, "k": 50}).json()["hits"]
        assert {hit["is_same_person"] for hit in hits} == {None}


def test_facts_and_people_cover_the_gallery(visitor: httpx.Client, people: Gallery) -> None:
    """Pages of people, and of each one's images, hold every row once, under its person."""
    facts = visitor.get("/gallery").json()
    assert facts["num_images"] == len(people)
    assert sum(camera["num_images"] for camera in facts["cameras"]) == len(people)
    assert (facts["all_cameras_known"], facts["takes_uploads"], facts["metric"]) == (
        True,
        True,
        people.metric,
    )
    seen: dict[int, int] = {}
    start = 0
    while page := visitor.get("/people", params={"start": start, "count": 3}).json()["people"]:
        for person in page:
            rest = 0
            while images := visitor.get(
                f"/people/{person['place']}", params={"start": rest, "count": 4}
            ).json()["images"]:
                seen |= {image["row"]: person["pid"] for image in images}
                rest += len(images)
            assert rest == person["num_images"]
        start += len(page)
    assert seen == dict(enumerate(people.pids.tolist()))
    assert facts["num_people"] == len({pid for pid in seen.values() if pid > 0})
    pids = sorted({pid for pid in seen.values() if pid > 0})
    assert visitor.get("/people", params={"from_pid": pids[2]}).json()["people"][0]["pid"] == pids[2]


def test_images_are_those_of_their_rows(visitor: httpx.Client, people: Gallery) -> None:
    """A small JPEG whose pixels are the file's but for a second compression."""
    answer = visitor.get("/images/3")
    assert answer.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(answer.content)) as shown, Image.open(people.paths[3]) as image:
        assert shown.size == image.size
        difference = np.abs(np.asarray(shown, np.float32) - np.asarray(image.convert("RGB"), np.float32))
    assert difference.mean() < 3


def test_a_sheet_shows_what_the_threshold_keeps(
    visitor: httpx.Client, people: Gallery, drawn_dataset: Dataset
) -> None:
    """A column for each image within the threshold, for a row and for an upload; at most twenty."""
    row = somebody(people)
    hits = visitor.post("/search", params={"row": row, "k": 30}).json()["hits"]

    def width(threshold: float, **asked: object) -> int:
        answer = visitor.post("/sheet", params={"row": row, "k": 30, "threshold": threshold, **asked})  # type: ignore[dict-item]
        assert answer.headers["content-type"] == "image/png"
        with Image.open(io.BytesIO(answer.content)) as sheet:
            return sheet.width

    widths = [width(hits[place]["distance"]) for place in (0, 1, 19, 29)]
    assert widths[1] - widths[0] == 112
    assert widths[2] - widths[0] == 19 * 112
    assert widths[3] == widths[2]
    upload = visitor.post("/sheet", params={"k": 3}, content=drawn_dataset.query[0].path.read_bytes())
    with Image.open(io.BytesIO(upload.content)) as sheet:
        assert sheet.width == widths[0] + 2 * 112


def test_too_much_is_refused_and_not_kept(site: Site, large_upload: Path) -> None:
    """20 MB end with status 413 and words, whether their size was announced or not; the server goes on."""
    with site.client() as client:
        data = large_upload.read_bytes()
        pieces = (data[start : start + 2**16] for start in range(0, len(data), 2**16))
        for content in (data, pieces):
            answer = client.post("/search", content=content)
            assert answer.status_code == 413
            assert answer.json()["error"].startswith("The image has more than 10 MiB. Send a smaller one")
        assert client.get("/gallery").status_code == 200


@pytest.mark.parametrize(
    ("path", "content", "status", "words"),
    [
        (
            "search",
            b"",
            400,
            "There is nothing to search for. Choose an image of the gallery, or upload one.",
        ),
        (
            "search?name=notes.txt",
            b"hello",
            400,
            "notes.txt: this is not an image. Choose a JPEG, PNG, WebP or BMP",
        ),
        ("search?row=9999", b"", 400, "The gallery has no row 9999."),
        ("sheet?row=9999", b"", 400, "The gallery has no row 9999."),
        ("search?row=99999999999999999999", b"", 422, ""),
        ("search?row=0&k=0", b"", 422, ""),
        ("search?row=0&k=201", b"", 422, ""),
        ("search?row=0&camids=-1", b"", 422, ""),
    ],
)
def test_bad_searches_are_refused(
    visitor: httpx.Client, path: str, content: bytes, status: int, words: str
) -> None:
    """What cannot be searched for is answered in words, what the page never asks with a status."""
    answer = visitor.post(path, content=content)
    assert answer.status_code == status
    assert words in answer.json().get("error", "")


@pytest.mark.parametrize("path", ["images/9999", "images/-1", "people/9999", "people/-1"])
def test_what_is_not_there_is_refused(visitor: httpx.Client, path: str) -> None:
    """Rows and people beyond the gallery are named."""
    answer = visitor.get(path)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("The gallery has ")


def test_rows_without_files_and_labels_are_shown_as_they_are(broken_site: Site) -> None:
    """Images that are gone or are none are told apart from others; nobody is known, and no filter is offered."""
    with broken_site.client() as client:
        facts = client.get("/gallery").json()
        assert (facts["takes_uploads"], facts["all_cameras_known"], facts["num_people"]) == (False, False, 1)
        hits = client.post("/search", params={"row": 0}).json()["hits"]
        assert {hit["row"]: hit["has_file"] for hit in hits} == {1: False, 2: True}
        for row, words in enumerate(["gone.jpg: file not found", "file not found", "not an image"]):
            answer = client.get(f"/images/{row}")
            assert (answer.status_code, words in answer.json()["error"]) == (400, True)
        refused = client.post("/search", params={"row": 0, "other_cameras": True, "camids": 0})
        assert "among_camids needs the camid of every row" in refused.json()["error"]
        refused = client.post("/search", content=b"anything")
        assert refused.status_code == 400
        assert client.post("/sheet", params={"row": 0}).status_code == 400


def test_uploads_need_an_artifact(broken_site: Site, drawn_dataset: Dataset) -> None:
    """Without one an upload is refused, with what to start the page with."""
    with broken_site.client() as client:
        answer = client.post("/search", content=drawn_dataset.query[0].path.read_bytes())
    assert answer.json() == {
        "error": "Uploaded images must be embedded. Start the page with --artifact ARTIFACT."
    }


def test_a_gallery_in_milvus_is_searched_alike(
    visitor: httpx.Client, people: Gallery, tmp_path: Path
) -> None:
    """The same people, images and neighbors, also after somebody was removed."""
    with MilvusGallery(str(tmp_path / "people.db"), people.dim, metric=people.metric) as stored:
        stored.extend(people)
        gone = int(people.pids.max())
        stored.remove([gone])
        with served(Searcher(stored)) as site, site.client() as client:
            assert client.get("/gallery").json()["num_images"] == int((people.pids != gone).sum())
            row = somebody(people)
            expected = visitor.post("/search", params={"row": row, "k": 100}).json()["hits"]
            found = client.post("/search", params={"row": row, "k": 100}).json()["hits"]
            kept = [hit for hit in expected if hit["pid"] != gone]
            assert [hit["path"] for hit in found] == [hit["path"] for hit in kept]
            np.testing.assert_allclose(
                [hit["distance"] for hit in found], [hit["distance"] for hit in kept], atol=1e-5
            )
            lost = int(np.flatnonzero(people.pids == gone)[0])
            assert client.get(f"/images/{lost}").json() == {"error": f"The gallery has no row {lost}."}
