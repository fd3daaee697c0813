"""A browser shows the report as it is meant."""

from pathlib import Path
from typing import Any

import pytest

from reidexport.evaluation.scoring import Evaluation
from tests.standins.report_results import COMMITTED, page_of

# In a browser: texts of plots that leave their plot or cover another, and cells of tables that leave their column.
_BADLY_PLACED = """[...document.querySelectorAll('.plot > svg')].flatMap(svg => {
    const frame = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll('text')];
    const boxes = texts.map(text => text.getBoundingClientRect());
    return texts.filter((_, i) =>
        boxes[i].left < frame.left - 1 || boxes[i].right > frame.right + 1 ||
        boxes[i].top < frame.top - 1 || boxes[i].bottom > frame.bottom + 1 ||
        boxes.some((box, j) => j !== i && box.left < boxes[i].right && boxes[i].left < box.right &&
            box.top < boxes[i].bottom && boxes[i].top < box.bottom));
}).concat([...document.querySelectorAll('th, td:not(.drawn)')].filter(
    cell => !cell.querySelector('.strip') && cell.scrollWidth > cell.clientWidth + 1
)).map(element => element.textContent)"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width_px", [390, 1280])
def test_a_browser_shows_the_page(
    browser: Any, folder: Path, tmp_path: Path, evaluation: Evaluation, width_px: int, theme: str
) -> None:
    """No message, no request, all images shown, nothing wider than the window, no text cut off or on another."""
    out = tmp_path / "report.html"
    page_of([folder, COMMITTED], out, evaluation)
    context = browser.new_context(viewport={"width": width_px, "height": 800}, color_scheme=theme)
    page = context.new_page()
    messages: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(out.as_uri())
    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [out.as_uri()]
    widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    assert widths and min(widths) > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width_px
    assert page.evaluate(
        "[...document.querySelectorAll('.plot > svg')].every(svg => svg.getBBox().width > 100)"
    )
    assert page.evaluate(_BADLY_PLACED) == []
    if width_px == 1280:
        beside = page.eval_on_selector_all(
            ".plot:not(:only-child)",
            "plots => plots.map(plot => plot.nextElementSibling.offsetTop - plot.offsetTop)",
        )
        assert beside and max(map(abs, beside)) < 100
    ground, ink = page.evaluate(
        "(({backgroundColor, color}) => [backgroundColor, color])(getComputedStyle(document.body))"
    )
    is_dark_ground = sum(map(int, ground[4:-1].split(","))) < 3 * 128
    is_dark_ink = sum(map(int, ink[4:-1].split(","))) < 3 * 128
    assert (is_dark_ground, is_dark_ink) == (theme == "dark", theme == "light")
    labels = page.eval_on_selector_all("svg text", "texts => texts.map(text => getComputedStyle(text).fill)")
    assert ink in labels
    context.close()
