"""The page in a real browser: images, clicks, filters, threshold, keyboard, both widths, both themes."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from reidexport.data import Dataset
from tests.reidexport.gallery.web.conftest import Site

WIDE = {"width": 1280, "height": 900}


def wait_until(page: Any, condition: str, arg: object = None) -> None:
    """Until an expression of the page is true; Playwright's own waiting would need unsafe-eval."""
    deadline = time.monotonic() + 10
    while not page.evaluate(condition, arg):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


@contextmanager
def opened(browser: Any, site: Site, allowed: str = "", **options: Any) -> Iterator[Any]:
    """The page, opened by its address; in the end it asked only for its own, and nothing but ``allowed`` went wrong."""
    context = browser.new_context(**{"viewport": WIDE, **options})
    page = context.new_page()
    page.set_default_timeout(10_000)
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(site.url)
    page.wait_for_selector("#leaves button")
    yield page
    assert [complaint for complaint in complaints if complaint != allowed] == []
    assert [url for url in requests if not url.startswith((site.base, "blob:"))] == []
    context.close()


def hits(page: Any) -> list[str]:
    """What the cards of the answer say, once it is shown."""
    page.wait_for_selector("#hits button")
    page.wait_for_selector("#hits[aria-busy]", state="detached")
    labels: list[str] = page.eval_on_selector_all(
        "#hits button", "all => all.map(button => button.getAttribute('aria-label'))"
    )
    return labels


def search_by_click(page: Any) -> list[str]:
    """Open the first person, take the first image."""
    page.click("#leaves button >> nth=0")
    page.click("#leaves button[aria-label^='Search for this image'] >> nth=0")
    return hits(page)


def problem(page: Any) -> str:
    """The message that is shown."""
    page.wait_for_selector("#problem:not([hidden])")
    return str(page.inner_text("#problem p"))


def focused(page: Any) -> str:
    """The accessible name of what has the focus."""
    return str(
        page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.id")
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width_px", [390, 1280])
def test_the_page_is_readable(browser: Any, site: Site, width_px: int, theme: str) -> None:
    """All crops there, nothing wider than the window, text dark on light or light on dark, also with an answer."""
    viewport = {"width": width_px, "height": 844}
    with opened(browser, site, viewport=viewport, color_scheme=theme) as page:
        search_by_click(page)
        page.eval_on_selector_all("img", "images => images.forEach(image => image.loading = 'eager')")
        wait_until(page, "[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert page.evaluate("document.images.length") > 10
        assert page.evaluate("document.documentElement.scrollWidth") <= width_px
        edges = page.eval_on_selector_all("main *", "all => all.map(e => e.getBoundingClientRect().right)")
        assert max(edges) <= width_px
        ground, ink = page.evaluate(
            "(({backgroundColor, color}) => [backgroundColor, color])(getComputedStyle(document.body))"
        )
        is_dark_ground = sum(map(int, ground[4:-1].split(","))) < 3 * 128
        is_dark_ink = sum(map(int, ink[4:-1].split(","))) < 3 * 128
        assert (is_dark_ground, is_dark_ink) == (theme == "dark", theme == "light")
        unnamed = (
            "[...document.querySelectorAll('button, input')].filter(e => !e.getAttribute('aria-label')"
            " && !e.labels?.length && !e.textContent.trim()).map(e => e.id)"
        )
        assert page.evaluate(unnamed) == []


def test_the_token_leaves_the_address(browser: Any, site: Site) -> None:
    """It is not in what a user copies from the address bar, and the page still works when loaded again."""
    with opened(browser, site) as page:
        assert page.url == site.base
        assert page.evaluate("document.cookie") == ""
        search_by_click(page)
        page.reload()
        assert len(hits(page)) == 10


def test_an_upload_is_searched_for(browser: Any, site: Site, drawn_dataset: Dataset) -> None:
    """Chosen or dropped, it is shown with what its name tells, beside its nearest images."""
    query = drawn_dataset.query[0]
    drop = """async (name) => {
        const [button] = document.querySelectorAll('#leaves button img');
        const data = new DataTransfer();
        data.items.add(new File([await (await fetch(button.src)).blob()], name, {type: 'image/jpeg'}));
        document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));
    }"""
    with opened(browser, site) as page:
        page.set_input_files("#file", query.path)
        found = hits(page)
        assert len(found) == 10
        assert found[0].startswith("Rank 1, distance 0.")
        assert query.path.name in page.inner_text("#asked")
        assert f"person {query.pid:04d}, camera {query.camid + 1}" in page.inner_text("#asked")
        assert page.evaluate("document.querySelector('#asked img').naturalWidth") > 0
        page.evaluate(drop, "0003_c2s1_000451_03.jpg")
        wait_until(page, "document.querySelector('#asked').innerText.includes('0003_c2s1')")
        assert "time 1000451" in page.inner_text("#asked")


def test_clicks_lead_from_person_to_person(browser: Any, site: Site) -> None:
    """A match becomes the query when it is clicked; the browser's Back and Esc return to the one before."""
    with opened(browser, site) as page:
        first = search_by_click(page)
        page.click("#hits button >> nth=2")
        wait_until(page, "label => document.querySelector('#hits button')?.ariaLabel != label", arg=first[0])
        second = hits(page)
        assert second != first
        page.keyboard.press("Escape")
        wait_until(page, "label => document.querySelector('#hits button')?.ariaLabel == label", arg=first[0])
        assert hits(page) == first
        page.go_forward()
        wait_until(page, "label => document.querySelector('#hits button')?.ariaLabel == label", arg=second[0])
        page.go_back()
        page.go_back()
        wait_until(page, "document.querySelectorAll('#hits button').length == 0")
        assert page.is_hidden("#asked") and page.is_hidden("#sheet")


def test_filters_change_the_answer(browser: Any, site: Site) -> None:
    """Ticked cameras, other cameras and the number of matches search anew."""
    with opened(browser, site) as page:
        search_by_click(page)
        assert "camera 1" in page.inner_text("#asked")
        with page.expect_response("**/search?*"):
            page.check("#cameras input[value='1']")
        assert all("camera 2" in label for label in hits(page))
        with page.expect_response("**/search?*"):
            page.uncheck("#cameras input[value='1']")
        with page.expect_response("**/search?*"):
            page.check("#other-cameras")
        assert hits(page) and not any("camera 1" in label for label in hits(page))
        with page.expect_response("**/search?*"):
            page.fill("#num-matches", "4")
            page.press("#num-matches", "Enter")
        wait_until(page, "document.querySelectorAll('#hits button').length == 4")


def test_the_threshold_shows_what_it_keeps(browser: Any, site: Site) -> None:
    """Typed or moved with the keyboard, it grays out what is further, and counts what is kept."""
    beyond = "document.querySelectorAll('#hits .beyond').length"
    with opened(browser, site) as page:
        found = search_by_click(page)
        distances = [float(label.split(", ")[1].removeprefix("distance ")) for label in found]
        assert page.inner_text("#kept").startswith("Keeps 10 of 10")
        page.fill("#threshold", str((distances[3] + distances[4]) / 2))
        assert page.evaluate(beyond) == 6
        same = sum("the same person" in label for label in found[:4])
        others = sum("another person" in label for label in found[:4])
        assert page.inner_text("#kept") == f"Keeps 4 of 10: {same} of the same person, {others} of others."
        assert page.inner_text("#sheet") == "Contact sheet of 4"
        page.focus("#slider")
        page.keyboard.press("End")
        assert page.evaluate(beyond) == 0
        assert "More may be as near: raise Matches." in page.inner_text("#kept")
        page.keyboard.press("Home")
        assert page.evaluate(beyond) == 10
        assert page.input_value("#threshold") == "0"
        assert page.is_disabled("#sheet")


def test_a_sheet_is_saved(browser: Any, site: Site, drawn_dataset: Dataset, tmp_path: Path) -> None:
    """A PNG of what the threshold keeps, for an image of the gallery and for an upload."""
    widths = []
    with opened(browser, site) as page:
        for query in ("row", "upload"):
            if query == "row":
                search_by_click(page)
            else:
                page.set_input_files("#file", drawn_dataset.query[0].path)
                wait_until(page, "document.querySelector('#asked').innerText.includes('0003_')")
            page.fill("#threshold", "2")
            with page.expect_download() as download:
                page.click("#sheet")
            assert download.value.suggested_filename == "matches.png"
            download.value.save_as(tmp_path / "matches.png")
            with Image.open(tmp_path / "matches.png") as sheet:
                widths.append((sheet.format, sheet.width))
    assert widths[0] == widths[1] and widths[0][0] == "PNG" and widths[0][1] > 10 * 112


def test_everything_can_be_done_with_the_keyboard(browser: Any, site: Site) -> None:
    """Tab reaches every part, arrows move among images, Enter searches, Esc goes back; the focus is always seen."""
    with opened(browser, site) as page:
        reached = []
        for _ in range(16):
            page.keyboard.press("Tab")
            reached.append(focused(page))
            style = page.evaluate(
                "(e => [getComputedStyle(e).outlineStyle, getComputedStyle(e.parentElement).outlineStyle])"
                "(document.activeElement)"
            )
            assert "solid" in style, reached[-1]
            if reached[-1].startswith("person"):
                break
        assert {"file", "other-cameras", "num-matches", "threshold", "from-pid"} <= {*reached}
        columns = page.evaluate(
            "getComputedStyle(document.querySelector('#leaves')).gridTemplateColumns.split(' ').length"
        )
        people = page.eval_on_selector_all("#leaves button", "all => all.map(button => button.ariaLabel)")
        assert focused(page) == people[0] and len(people) > columns > 1
        for key, place in (
            ("ArrowRight", 1),
            ("ArrowLeft", 0),
            ("ArrowLeft", 0),
            ("ArrowDown", columns),
            ("ArrowUp", 0),
            ("ArrowUp", 0),
            ("End", len(people) - 1),
            ("ArrowRight", len(people) - 1),
            ("Home", 0),
        ):
            page.keyboard.press(key)
            assert focused(page) == people[place], key
        page.keyboard.press("Enter")
        page.wait_for_selector("#leaves button[aria-label^='Search for this image']")
        assert focused(page).startswith("Search for this image")
        page.keyboard.press("Escape")
        page.wait_for_selector("#leaves button[aria-label^='person']")
        assert focused(page) == people[0]
        page.keyboard.press("Enter")
        page.wait_for_selector("#leaves button[aria-label^='Search for this image']")
        page.keyboard.press("Enter")
        found = hits(page)
        assert focused(page) == found[0]
        page.keyboard.press("ArrowRight")
        assert focused(page) == found[1]
        assert page.evaluate("document.querySelectorAll('#hits button[tabindex=\"0\"]').length") == 1


def test_people_are_paged_through(browser: Any, site: Site) -> None:
    """Page by page, to a person by number, and back from one person's images to the page that was left."""
    with opened(browser, site) as page:
        page.evaluate("document.querySelector('#from-pid').value = 5")
        page.click("#go-to button")
        wait_until(page, "document.querySelector('#leaves button').ariaLabel.startsWith('person 0005')")
        assert not page.is_disabled("#previous") and page.is_disabled("#next")
        page.click("#leaves button")
        page.wait_for_selector("#all-people:not([hidden])")
        assert page.inner_text("#people-title") == "Images of: person 0005"
        page.click("#all-people")
        wait_until(page, "document.querySelector('#leaves button').ariaLabel.startsWith('person 0005')")
        page.click("#previous")
        wait_until(page, "document.querySelector('#shown').innerText.startsWith('1–')")
        assert page.is_disabled("#previous")


def test_what_is_not_an_image_is_refused_in_the_page(
    browser: Any, site: Site, large_upload: Path, tmp_path: Path
) -> None:
    """20 MB and a text: a message that says what to do, the earlier answer stays, and Esc puts it away."""
    notes = tmp_path / "notes.jpg"
    notes.write_text("not an image at all")
    with opened(browser, site) as page:
        found = search_by_click(page)
        page.set_input_files("#file", large_upload)
        assert problem(page) == (
            "large.jpg: the image has 19.1 MiB, and the limit is 10. Send a smaller one, or crop it to the person."
        )
        page.set_input_files("#file", notes)
        wait_until(page, "document.querySelector('#problem').innerText.includes('notes.jpg')")
        assert problem(page) == "notes.jpg: this is not an image. Choose a JPEG, PNG, WebP or BMP file."
        assert hits(page) == found
        page.keyboard.press("Escape")
        assert page.is_hidden("#problem")
        assert hits(page) == found


def test_what_only_the_server_can_refuse_is_refused_in_the_page(
    browser: Any, site: Site, drawn_dataset: Dataset, tmp_path: Path
) -> None:
    """A cut-off JPEG: its message is shown, filters still change the earlier answer, a better image clears it."""
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(drawn_dataset.query[0].path.read_bytes()[:600])
    context = browser.new_context(viewport=WIDE)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(site.url)
    search_by_click(page)
    page.set_input_files("#file", cut)
    assert problem(page).startswith("cut.jpg: ")
    with page.expect_response("**/search?*") as response:
        page.fill("#num-matches", "3")
        page.press("#num-matches", "Enter")
    assert response.value.status == 200
    assert len(hits(page)) == 3
    assert page.is_hidden("#problem")
    assert errors == []
    context.close()


def test_missing_images_and_labels_are_shown_politely(browser: Any, broken_site: Site) -> None:
    """Words are shown in place of a missing image; what cannot be done is not offered, and the page says why."""
    no_image = "Failed to load resource: the server responded with a status of 400 (Bad Request)"
    with opened(browser, broken_site, allowed=no_image) as page:
        assert "start the page with --artifact ARTIFACT" in page.inner_text("#no-artifact")
        assert page.is_hidden("#drop") and page.is_hidden("#cameras")
        assert page.is_disabled("#other-cameras")
        assert "cameras are not known" in page.inner_text("#cameras-note")
        page.click("#leaves button[aria-label^='person not known']")
        page.click("#leaves button[aria-label^='Search for this image'] >> nth=0")
        assert len(hits(page)) == 2
        assert page.inner_text("#asked .missing") == "file not found"
        wait_until(page, "document.querySelector('#hits').innerText.includes('no file')")
        page.set_input_files("#file", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": b"\xff\xd8\xff"})
        assert "--artifact ARTIFACT" in problem(page)


def test_a_server_that_is_gone_is_noticed(browser: Any, site: Site) -> None:
    """A page whose server was stopped says so, one of an earlier token what to open."""
    context = browser.new_context(viewport=WIDE)
    page = context.new_page()
    page.goto(site.url)
    page.wait_for_selector("#leaves button")
    context.clear_cookies()
    page.click("#leaves button >> nth=0")
    assert problem(page) == "This page is out of date. Open the address that reidexport printed."
    context.set_offline(True)
    page.click("#leaves button >> nth=1")
    wait_until(page, "document.querySelector('#problem').innerText.includes('does not answer')")
    assert json.loads(page.evaluate("JSON.stringify(history.state)")) is None
    context.close()
