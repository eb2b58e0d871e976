"""Charts in a page: what they show, say to those who do not see them, and how they answer pointer and keys."""

from typing import Any

import pytest
from playwright.sync_api import Page

pytestmark = pytest.mark.browser

HOSTILE = '<img src=x onerror="document.title=1">\u202e{{7*7}}'
_DRAW = """async ([module, name, options]) => {
  const made = await import(`/charts/${module}.js`);
  const { Selection } = await import("/charts/selection.js");
  window.picked = [];
  window.selection = new Selection();
  window.frame = made[name](document.getElementById("host"), {
    ...options, selection: window.selection, picked: (what) => { window.picked.push(what); } });
  window.selection.addEventListener("change", () => made.reselect?.(window.frame));
}"""

LINES = {
    "title": "loss",
    "x": {"label": "epoch", "kind": "int"},
    "y": {"label": "loss"},
    "series": [
        {"name": "train", "points": [[1, 1.5], [2, 0.5], [3, 0.25]]},
        {"name": HOSTILE, "points": [[1, 2], [2, None], [3, 1]]},
    ],
    "seams": [{"x": 2, "label": "attempt 2"}],
}
MAP = {
    "title": "best",
    "mode": "max",
    "across": {"label": "rho", "names": ["0.1", "0.2", HOSTILE]},
    "down": {"label": "k", "names": ["1", "2"]},
    "cells": [
        {"column": 0, "row": 0, "value": 0.5, "num": 2, "cost": 100},
        {"column": 2, "row": 1, "value": 0.9, "num": 1, "cost": 300},
    ],
}


def trials(num: int) -> list[dict[str, Any]]:
    """Return trials over two axes, every tenth without a value."""
    return [
        {
            "number": i + 1,
            "arm": HOSTILE if i % 2 else "xsam",
            "tone": "blue",
            "values": {"rho": 0.01 * (i + 1), "value": i / num},
            "score": None if i % 10 == 9 else i / num,
        }
        for i in range(num)
    ]


PARALLEL = {
    "title": "coordinates",
    "mode": "max",
    "trials": trials(100),
    "axes": [
        {"key": "rho", "label": "rho", "kind": "log", "isLog": True, "domain": [0.01, 1]},
        {"key": "value", "label": HOSTILE, "kind": "linear", "domain": [0, 1]},
    ],
}


def draw(charts: Page, module: str, name: str, options: dict[str, Any]) -> None:
    """Draw a chart into the page's figure."""
    charts.evaluate(_DRAW, [module, name, options])


def summary(charts: Page) -> str:
    """Return what the drawn chart says of itself."""
    return charts.locator("svg[role=img]").get_attribute("aria-label") or ""


def test_line__draws_a_line_a_series_and_says_it_in_words(charts: Page) -> None:
    draw(charts, "line", "lineChart", LINES)

    assert charts.locator("#host path.line").count() == 2
    assert "train from 1.5 to 0.25 over epoch 1 to 3" in summary(charts)
    assert charts.get_by_text("attempt 2").count() == 1


def test_line__hostile_names_are_text_in_legend_tooltip_and_table(charts: Page) -> None:
    draw(charts, "line", "lineChart", LINES)
    body = charts.locator(".chart-body").bounding_box()
    assert body is not None
    charts.mouse.move(body["x"] + body["width"] - 20, body["y"] + 60)

    shown = HOSTILE.replace("\u202e", "\u2426")
    assert shown in charts.locator(".chart-tip").inner_text()
    assert shown in charts.locator(".chart-legend").inner_text()
    charts.get_by_role("button", name="as table").click()
    assert charts.locator("#host img").count() == 0
    assert charts.title() == "charts"
    assert charts.locator("tbody tr").all_inner_texts() == ["1\t1.5\t2", "2\t0.5\t-", "3\t0.25\t1"]


def test_line__a_series_is_hidden_by_its_key(charts: Page) -> None:
    draw(charts, "line", "lineChart", LINES)
    charts.get_by_role("button", name="train").click()
    assert charts.locator("#host path.line").count() == 1
    assert charts.get_by_role("button", name="train").get_attribute("aria-pressed") == "false"


def test_line__arrows_walk_and_say_the_values(charts: Page) -> None:
    draw(charts, "line", "lineChart", LINES)
    charts.locator(".chart-body").focus()
    charts.keyboard.press("End")
    charts.keyboard.press("ArrowLeft")
    assert charts.locator(".chart-said").inner_text() == "epoch 2: train 0.5"
    charts.keyboard.press("Enter")
    assert charts.evaluate("picked") == [2]


def test_line__without_a_value_says_so(charts: Page) -> None:
    draw(charts, "line", "lineChart", {**LINES, "series": [], "empty": "No epoch has ended."})
    assert summary(charts) == "loss: No epoch has ended."


def test_map__walk_reads_cells_and_enter_picks_one(charts: Page) -> None:
    draw(charts, "map", "mapChart", MAP)
    charts.locator(".chart-body").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown"):
        charts.keyboard.press(key)
    assert "value 0.9, trials 1, cost 300 ev an epoch" in charts.locator(".chart-said").inner_text()
    charts.keyboard.press("Enter")
    assert charts.evaluate("picked.map(({ column, row, num }) => [column, row, num])") == [[2, 1, 1]]
    assert "2 of 6 cells tried" in summary(charts)


def test_map__a_click_picks_the_cell(charts: Page) -> None:
    draw(charts, "map", "mapChart", MAP)
    charts.locator("rect.cell:not(.is-blank)").first.click(force=True)
    assert charts.evaluate("picked.map(({ column, row, num }) => [column, row, num])") == [[0, 0, 2]]


def test_map__empty_cells_are_hatched_and_costs_are_lines(charts: Page) -> None:
    draw(charts, "map", "mapChart", MAP)
    assert charts.locator("rect.cell").count() == 6
    assert charts.locator("rect.is-blank").count() == 4
    assert charts.locator("path.iso-cost").count() >= 1


def test_parallel__brush_keeps_what_it_holds_and_a_click_lets_go(charts: Page) -> None:
    draw(charts, "parallel", "parallelChart", PARALLEL)
    body = charts.locator(".chart-body").bounding_box()
    assert body is not None
    x = body["x"] + charts.evaluate("frame.lay.x(1)")
    at = [body["y"] + charts.evaluate(f"frame.lay.scales[1].at({value})") for value in (0.5, 1)]
    charts.mouse.move(x, at[0])
    charts.mouse.down()
    charts.mouse.move(x, (at[0] + at[1]) / 2)
    charts.mouse.move(x, at[1])
    charts.mouse.up()

    assert charts.evaluate("selection.toBrushes().map((text) => text.split(':')[0])") == ["value"]
    assert charts.evaluate("frame.numKept") == 50
    assert "50 kept, 10 without a value" in charts.evaluate("frame.kind.summary(frame.options)")
    charts.mouse.click(x, (at[0] + at[1]) / 2)
    assert charts.evaluate("frame.numKept") == 100


def test_parallel__titles_are_buttons_that_toggle_and_move(charts: Page) -> None:
    draw(charts, "parallel", "parallelChart", PARALLEL)
    charts.evaluate(
        """() => {
          frame.options.toggled = (...what) => picked.push(what);
          frame.options.ordered = (keys) => picked.push(keys);
        }"""
    )
    title = charts.locator(".axis-button").first
    title.click()
    title.focus()
    charts.keyboard.press("Alt+ArrowRight")
    assert charts.evaluate("picked") == [["rho", "log"], ["value", "rho"]]


def test_scatter__shows_failed_ones_with_a_cross_and_a_dot_is_picked(charts: Page) -> None:
    options = {**PARALLEL, "x": {"key": "rho", "label": "rho", "kind": "log"}, "y": {"label": "value"}}
    draw(charts, "scatter", "scatterChart", options)
    assert charts.locator("path.failed").count() == 1
    body = charts.locator(".chart-body").bounding_box()
    dot = charts.evaluate("frame.dots[50]")
    assert body is not None
    charts.mouse.click(body["x"] + dot["x"], body["y"] + dot["y"])
    assert charts.evaluate("picked") == [51]
    assert "90 trials from 0 to 0.98, 10 without a value" in summary(charts)


def test_heat__walks_from_search_to_search(charts: Page) -> None:
    searches = [
        {"step": 10 * i + 1, "epoch": 1, "alpha": 1.0, "angle_rad": 0.2, "alphas": [0, 1, 2], "losses": [0, 1 + i, 0]}
        for i in range(5)
    ]
    draw(charts, "heat", "heatChart", {"title": "probe curves", "searches": searches, "num": 5, "edgeShare": 0.25})
    charts.locator(".chart-body").focus()
    charts.keyboard.press("End")
    assert charts.locator(".chart-said").inner_text() == "step 41: alpha* 1"
    assert "5 searches; alpha* from 1 to 1, mean 1; at an edge of the range in 25 %" in summary(charts)


@pytest.mark.parametrize(
    ("module", "name", "options", "said"),
    [
        ("bars", "barChart", {"items": [{"name": HOSTILE, "value": 0.7}]}, "70.0 %"),
        ("bars", "stackChart", {"names": ["Nov 1"], "series": [{"name": HOSTILE, "values": [3]}]}, "3 in all"),
        (
            "intervals",
            "intervalChart",
            {"items": [{"name": HOSTILE, "value": 0.02, "low": 0.01, "high": 0.03}]},
            "between +0.01 and +0.03",
        ),
        (
            "rungs",
            "rungChart",
            {
                "y": {},
                "rungs": [{"level": 500, "cut": 0.4, "trials": [{"number": 1, "value": 0.3, "isStopped": True}]}],
            },
            "1 trials reached 500 ev, 1 were stopped there",
        ),
        (
            "lanes",
            "laneChart",
            {
                "range": [0, 3600],
                "lanes": [{"key": "a", "label": HOSTILE}],
                "blocks": [{"lane": "a", "from": 10, "to": None, "label": HOSTILE}],
            },
            "1 lanes, 1 stays of jobs, 1 of them now",
        ),
    ],
)
def test_every_chart__says_itself_and_keeps_text_as_text(
    charts: Page, module: str, name: str, options: dict[str, Any], said: str
) -> None:
    draw(charts, module, name, {"title": "chart", **options})
    assert said in summary(charts)
    assert charts.get_by_role("button", name="as table").count() == 1
    charts.get_by_role("button", name="as table").click()
    assert charts.locator("tbody tr").count() == 1
    assert charts.locator("#host img").count() == 0
