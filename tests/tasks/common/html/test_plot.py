"""Figures: axes place points where they belong, ticks are round, few and inside."""

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from veldt.tasks.common.html import plot as plot_lib
from veldt.tasks.common.html.plot import Frame, LinearAxis, LogAxis, Plot


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_round_few_and_inside(low, width):
    high = low + width
    assume(width > 1e-9 * abs(low))
    found = plot_lib.ticks(low, high)
    assert 1 <= len(found) <= 8
    slack = 1e-6 * width
    assert all(low - slack <= value <= high + slack for value in found)
    steps = np.diff(found)
    if len(steps):
        digits = steps[0] / 10.0 ** math.floor(math.log10(steps[0]) + 1e-6)
        assert np.isclose(digits, [1, 2, 5, 10], rtol=1e-3).any()


@given(st.floats(-8, 6), st.floats(0.05, 12))
def test_logarithmic_ticks_rise_are_few_and_inside(exponent, decades):
    low, high = 10.0**exponent, 10.0 ** (exponent + decades)
    found = plot_lib.log_ticks(low, high, 5)
    assert 1 <= len(found) <= 7
    assert found == sorted(found)
    assert all(low * (1 - 1e-6) <= value <= high * (1 + 1e-6) for value in found)


def test_logarithmic_ticks_are_those_that_people_expect():
    assert plot_lib.log_ticks(0.9e-4, 1.1) == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    assert plot_lib.log_ticks(0.04, 1.3, 5) == pytest.approx([0.05, 0.1, 0.2, 0.5, 1.0])
    assert plot_lib.log_ticks(0.22, 1.1, 5) == pytest.approx([0.3, 0.5, 0.7, 1.0])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.02, "0.02"),
        (500.0, "500"),
        (1e-5, "10⁻⁵"),
        (2e-7, "2·10⁻⁷"),
        (1e6, "10⁶"),
        (0.001, "0.001"),
    ],
)
def test_values_of_logarithmic_axes_are_short(value, text):
    assert plot_lib.log_text(value) == text


def test_points_are_placed_and_held_inside_the_axes():
    plot = Plot(LinearAxis(0, 10, ""), LinearAxis(-2, -1, ""))
    left, bottom = plot.place((0, -2))
    right, top = plot.place((10, -1))
    assert left < right and top < bottom  # The page counts downwards.
    assert plot.place((5, -1.5)) == ((left + right) / 2, (top + bottom) / 2)
    assert plot.place((99, 5)) == (right, top)


def test_equal_ratios_are_equally_long_and_nothing_is_below_zero():
    axis = LogAxis(0.125, 8, "")
    assert [axis.share(value) for value in (0.125, 1, 8)] == pytest.approx([0, 0.5, 1])
    assert axis.share(0.5) - axis.share(0.25) == pytest.approx(axis.share(4) - axis.share(2))
    assert [axis.share(value) for value in (0, -1, 1e-9, 1e9, math.inf)] == [0, 0, 0, 1, 1]


def test_a_step_line_holds_its_value_until_the_next():
    plot = Plot(LinearAxis(0, 10, ""), LinearAxis(0, 10, ""))
    path = re.search(r'd="([^"]+)"', plot.steps([(0, 8), (4, 2)], 10, "fitness"))[1]
    drawn = [tuple(map(float, point.split())) for point in path[1:].split("L")]
    expected = [plot.place(point) for point in ((0, 8), (4, 8), (4, 2), (10, 2))]
    assert np.allclose(drawn, expected, atol=0.06)


def test_a_figure_names_its_axes_and_ticks_and_leaves_out_empty_labels():
    marks = ((0.5, "1/2"), (1.0, "1"))
    plot = Plot(
        LogAxis(0.25, 2, "ratio <x>", marks=marks), LinearAxis(0, 4, "", most=4), Frame(300, 200)
    )
    tree = ET.fromstring(plot.svg("a title", "what it shows"))
    texts = [element.text for element in tree.iter("text")]
    assert texts == ["0", "1", "2", "3", "4", "1/2", "1", "ratio <x>"]
    assert tree.get("viewBox") == "0 0 300 200"
    assert (tree.find("title").text, tree.find("desc").text) == ("a title", "what it shows")


def test_a_small_marker_is_at_the_place_of_a_large_one():
    large = ET.fromstring(plot_lib.marker(10, 20, "x", "diamond"))
    small = ET.fromstring(plot_lib.marker(10, 20, "x", "diamond", 0.5))
    assert large.get("d").startswith("M10.0 13.0l")
    assert small.get("transform") == "translate(10.0 20.0) scale(0.5)"
    assert small.get("d").startswith("M0 -7l")
