"""Ratios on a logarithmic axis: its ticks, and where its marks are."""

import re

import numpy as np
import pytest

from reidexport.records.speed import Spread
from reidexport.report.marks import Mark, axis_heading, axis_of, log_ticks, strip


def test_ticks_of_logarithmic_axes_are_few_and_inside() -> None:
    """Two to seven round numbers for every range, 1 among them where the range is around it."""
    random = np.random.default_rng(0)
    for low, span in zip(10 ** random.uniform(-6, 6, 1000), 10 ** random.uniform(0.05, 9, 1000), strict=True):
        ticks = log_ticks(low, low * span)
        assert 2 <= len(ticks) <= 7
        assert low <= min(ticks) < max(ticks) <= low * span
        assert all(float(f"{tick:.3g}") == pytest.approx(tick, rel=1e-9) for tick in ticks)
        assert 1 in ticks or not low <= 1 <= low * span or span > 1e5


def test_strips_are_on_the_axis_of_their_heading() -> None:
    """The line at 1 is where a ratio of 1 is; medians and ends are where the logarithm puts them."""
    axis = axis_of([Spread(median=2, lowest=0.5, highest=8)])
    drawn = strip(axis, [("torch <eager>", Mark(0, "o"), Spread(median=2, lowest=1, highest=8))])
    one = re.findall(r'class="one" x1="([\d.]+)%"', drawn)
    left, right = re.findall(r'<line x1="([\d.]+)%" x2="([\d.]+)%" y1="50', drawn)[0]
    middle = re.findall(r'<svg x="([\d.]+)%" y="50', drawn)[0]
    assert one == [left]
    assert float(middle) - float(left) == pytest.approx((float(right) - float(left)) / 3, abs=0.02)
    assert f'x="{left}%" y="100%"' in axis_heading(axis)
    assert "torch &lt;eager&gt;: 2 × (1 to 8)" in drawn
