"""Plots: where their labels are."""

import numpy as np
import pytest
from matplotlib.transforms import Bbox

from reidexport.report.marks import Mark
from reidexport.report.plots import Dot, draw_accuracy_against_latency


@pytest.mark.parametrize("num_dots", [1, 2, 5, 12])
@pytest.mark.parametrize("span", [0.0, 1e-4, 0.05, 3.0])
def test_no_label_of_the_scatter_covers_anything(num_dots: int, span: float) -> None:
    """Neither another label nor a mark, on the drawn figure and inside its axes, however near the points are."""
    random = np.random.default_rng(num_dots)
    dots = [
        Dot(str(i), 3 * 10 ** (span * x), 0.7 + span * y / 10, Mark(i, "o"))
        for i, (x, y) in enumerate(random.random((num_dots, 2)), 1)
    ]
    figure = draw_accuracy_against_latency([*dots, dots[0]._replace(label="same")])
    figure.draw_without_rendering()
    axes = figure.axes[0]
    texts = [text.get_window_extent() for text in axes.texts if text.get_text()]
    centers = axes.transData.transform([(dot.p50_ms, 100 * dot.mAP) for dot in dots])
    marks = [Bbox.from_bounds(x - 3.5, y - 3.5, 7, 7) for x, y in centers]
    assert len(texts) == num_dots + 1
    for i, text in enumerate(texts):
        assert text.count_overlaps([*texts[:i], *texts[i + 1 :], *marks]) == 0
        assert axes.bbox.containsx(text.x0) and axes.bbox.containsx(text.x1)
        assert axes.bbox.containsy(text.y0) and axes.bbox.containsy(text.y1)
