"""The charts' arithmetic: ticks, formats, thinning, ranks, contours, ranges; each case a row of a table."""

import math
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.api.dashboard.charts.conftest import Evaluate
from xsam.api import formats

pytestmark = pytest.mark.browser

TICKS = [
    ("linearTicks", (0, 1, 5), [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ("linearTicks", (0, 100, 4), [0, 25, 50, 75, 100]),
    ("linearTicks", (-3, 3, 3), [-2, 0, 2]),
    ("linearTicks", (0.1, 0.3, 4), [0.1, 0.15, 0.2, 0.25, 0.3]),
    ("linearTicks", (5, 5, 4), [5]),
    ("logTicks", (0.01, 0.5, 5), [0.01, 0.02, 0.05, 0.1, 0.2, 0.5]),
    ("logTicks", (1e-5, 1e-1, 5), [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]),
    ("logTicks", (1e-9, 1, 5), [1e-9, 1e-7, 1e-5, 1e-3, 1e-1]),
    ("logTicks", (0.11, 0.14, 3), [0.11, 0.12, 0.13, 0.14]),
    ("timeTicks", (0, 7200, 4, 0), [0, 1800, 3600, 5400, 7200]),
    ("timeTicks", (100, 400, 5, 0), [120, 180, 240, 300, 360]),
    ("timeTicks", (0, 86400, 2, 3600), [39600, 82800]),
    ("durationTicks", (0, 3, 3), [0, 1, 2, 3]),
    ("durationTicks", (0, 120, 4), [0, 30, 60, 90, 120]),
]
FORMATS = [
    ("parameter", 0.0001, "1e-4"),
    ("parameter", 0.07071, "0.0707"),
    ("parameter", 12340, "12,340"),
    ("parameter", 1234.56, "1,235"),
    ("parameter", 0, "0"),
    ("parameter", 3, "3"),
    ("parameter", 2e9, "2e9"),
    ("parameter", None, "-"),
    ("parameter", "sgd", "sgd"),
    ("parameter", {"name": "adamw"}, '{"name":"adamw"}'),
    ("percent", 0.9136, "91.4 %"),
    ("percent", None, "-"),
    ("loss", 0.3194, "0.319"),
    ("loss", 1234.5678, "1,234.568"),
    ("loss", 0.00002, "2e-5"),
    ("short", 41234, "41.2k"),
    ("short", 1999999, "2M"),
    ("short", 999.99, "1k"),
    ("short", 12, "12"),
    ("evaluations", 880, "880 ev"),
    ("duration", 3.24, "3.2 s"),
    ("duration", 75, "1:15 min"),
    ("duration", 3725, "1:02 h"),
    ("duration", 90000, "1 d 1 h"),
    ("duration", None, "-"),
    ("bytes", 25944, "25.3 KiB"),
    ("bytes", 12, "12 B"),
    ("signed", 0.014, "+0.014"),
    ("signed", -0.5, "\u22120.5"),
    ("signed", 0, "0"),
    ("visible", "a\u202eb", "a\u2426b"),
]
STATS: list[tuple[str, str, tuple[Any, ...], Any]] = [
    ("scale", "domain", ([3, 1, 2],), [1, 3]),
    ("scale", "domain", ([],), [0, 1]),
    ("scale", "domain", ([5, 5],), [4.5, 5.5]),
    ("scale", "domain", ([0, 1, 100], "log"), [1, 100]),
    ("scale", "domain", ([-1, 0], "log"), [0.1, 1]),
    ("scale", "everyNth", (30, 50, 300), 5),
    ("stats", "smoothed", ([1, 3], 0), [1, 3]),
    ("stats", "smoothed", ([2, 2, 2], 0.9), [2, 2, 2]),
    ("stats", "smoothed", ([0, 3], 0.5), [0, 2]),
    ("stats", "bestSoFar", ([1, None, 3, 2], "max"), [1, 1, 3, 3]),
    ("stats", "bestSoFar", ([None, 2, 3, 1], "min"), [None, 2, 2, 1]),
    ("stats", "nearest", ([[0, 0], [10, 0], [20, 0]], 14), 1),
    ("stats", "nearest", ([[0, 0], [10, 0], [20, 0]], 99), 2),
    ("stats", "quantile", ([4, 1, 3, 2], 0.5), 2.5),
    ("stats", "robustRange", ([5, 5, 5],), [5, 5]),
    ("stats", "ranks", ([10, 30, 20, 20],), [0, 3, 1.5, 1.5]),
    ("stats", "rankCorrelation", ([1, 2, 3, 4], [10, 20, 30, 40]), 1),
    ("stats", "rankCorrelation", ([1, 2, 3], [9, 5, 1]), -1),
    ("stats", "bin", (0.5, 0.01, 0.5, 8, True), 7),
    ("stats", "bin", (0.01, 0.01, 0.5, 8, True), 0),
    ("stats", "bin", (math.sqrt(0.01 * 0.5), 0.01, 0.5, 8, True), 4),
    ("stats", "bin", (7.5, 0, 10, 4), 3),
    ("stats", "contour", ([[0, 0], [2, 2]], 1), [[[1, 0.5], [0, 0.5]]]),
    ("stats", "contour", ([[0, 0], [0, 0]], 1), []),
    ("map", "costGrid", ([{"column": 1, "row": 0, "cost": 4}], 2, 1), [[4, 4]]),
    ("map", "isoLevels", ([100, 150, 200, 300],), [250, 125, 175]),
    ("map", "isoLevels", ([90, 160, 330],), [200, 300]),
    ("map", "isoLevels", ([100, 101],), []),
    ("heat", "onGrid", ([0, 1, 2], [0, 10, 0], [0, 0.5, 2]), [0, 5, 0]),
    ("slots", "slots", ([{"from": 0, "to": 5, "wide": 2}, {"from": 5, "to": None, "wide": 1}], 2), [[0, 1], [0]]),
    ("slots", "slots", ([{"from": i, "to": None, "wide": 1} for i in range(3)], 0, 2), [[0], [1], [0]]),
    ("slots", "slots", ([{"from": 0, "to": 9, "wide": 1}, {"from": 1, "to": 3, "wide": 1}], 1), [[0], [0]]),
    ("slots", "slots", ([{"from": 0, "to": 9, "wide": 3}], 2), [[0, 1]]),
    ("selection", "holds", ({"low": 0.1, "high": 0.2}, 0.2), True),
    ("selection", "holds", ({"low": 0.1, "high": 0.2}, 0.21), False),
    ("selection", "holds", ({"low": 0.1, "high": 0.2}, None), False),
    ("line", "linePath", ([[0, 1], [2, 3], None, [4, 5]],), "M0 1L2 3M4 5"),
    ("line", "linePath", ([[0, 1], [2, 3]], True), "M0 1H2V3"),
]


@pytest.mark.parametrize(("function", "args", "expected"), TICKS)
def test_ticks__are_round_and_inside(
    call: Evaluate, function: str, args: tuple[Any, ...], expected: list[float]
) -> None:
    assert call("scale", function, *args) == pytest.approx(expected)


@pytest.mark.parametrize(("function", "value", "expected"), FORMATS)
def test_format__says_it_as_the_command_does(call: Evaluate, function: str, value: Any, expected: str) -> None:
    assert call("format", function, value) == expected


@pytest.mark.parametrize(("module", "function", "args", "expected"), STATS)
def test_arithmetic(call: Evaluate, module: str, function: str, args: tuple[Any, ...], expected: Any) -> None:
    found = call(module, function, *args)
    assert found == (pytest.approx(expected) if isinstance(expected, int | float) else expected)


def test_thinning__keeps_ends_and_every_spike(call: Evaluate) -> None:
    points = [[i, 0] for i in range(10_000)]
    points[5_017][1], points[5_018][1] = 7, -7

    kept = call("stats", "thinned", points, 400)

    assert len(kept) <= 400
    assert kept[0] == [0, 0]
    assert kept[-1] == [9_999, 0]
    assert [5_017, 7] in kept
    assert [5_018, -7] in kept
    assert [x for x, _ in kept] == sorted({x for x, _ in kept})


@pytest.mark.parametrize(
    ("kind", "domain", "value", "position"),
    [("linear", [0, 10], 5, 150), ("log", [0.01, 1], 0.1, 150), ("log", [-1, 1], 0, 150), ("time", [0, 60], 15, 125)],
)
def test_scale__goes_there_and_back(
    charts: Page, kind: str, domain: list[float], value: float, position: float
) -> None:
    script = """async ([kind, domain, value]) => {
      const { scale } = await import("/charts/scale.js");
      const made = scale(kind, domain, [100, 200]);
      return [made.at(value), made.value(made.at(value))];
    }"""
    assert charts.evaluate(script, [kind, domain, value]) == pytest.approx([position, value])


def test_formats__agree_with_the_command(call: Evaluate) -> None:
    for seconds in (0.04, 59.94, 60, 3599.4, 3600, 86_399, 86_400, 1e6):
        assert call("format", "duration", seconds) == formats.duration(seconds)
    for share in (0, 0.5, 0.99949, 1):
        assert call("format", "percent", share) == formats.percent(share)
    for value in (0.5, 1.2346, 1234.5, 12):
        assert call("format", "loss", value) == formats.number(value)
