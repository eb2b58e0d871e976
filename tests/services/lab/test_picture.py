"""Pictures and reports are well-formed, and things are where their numbers say."""

import xml.etree.ElementTree as ET

import pytest

from xsam.services.db.clock import utc_now
from xsam.services.lab.finding import Arrow, Estimate, Finding, Heat, Panel, Series, Verdict
from xsam.services.lab.picture import draw
from xsam.services.lab.report import as_html
from xsam.services.lab.schemas import LabRunRead

SVG = "{http://www.w3.org/2000/svg}"
LINE = Series(name="a < b", points=[(0.1, 1.0), (0.2, 3.0), (0.4, 2.0)], band=[(0.5, 1.5), (2.5, 3.5), (1.5, 2.5)])


def circles(panel: Panel) -> list[tuple[float, float]]:
    root = ET.fromstring(draw([panel]))
    return [(float(one.get("cx", "")), float(one.get("cy", ""))) for one in root.iter(f"{SVG}circle")]


def test_points__lie_in_order_and_log_axes_are_even() -> None:
    found = circles(Panel(title="t", x_label="rho", y_label="%", series=[LINE], has_log_x=True))
    (x0, y0), (x1, y1), (x2, y2) = found
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y1 < y2 < y0  # up is small
    straight = circles(Panel(title="t", x_label="rho", y_label="%", series=[LINE]))
    assert straight[2][0] - straight[1][0] == pytest.approx(2 * (straight[1][0] - straight[0][0]), abs=0.2)


def test_numbers_of_points_close_together__do_not_run_into_each_other() -> None:
    tried = [0.05, 0.1, 0.2, 0.25, 0.4, 0.5, 1.0, 2.0, 4.0]
    line = Series(name="a", points=[(x, 1.0 + x) for x in tried])
    root = ET.fromstring(draw([Panel(title="t", x_label="rho", y_label="%", series=[line], has_log_x=True)]))
    numbers = [one.text for one in root.iter(f"{SVG}text") if one.text in {f"{x:g}" for x in tried}]
    assert {"0.05", "0.2", "0.4", "4"} <= set(numbers)
    assert {"0.25", "0.5"}.isdisjoint(numbers)


def test_legend__has_room_for_every_name() -> None:
    def places(names: list[str]) -> list[tuple[float, float]]:
        lines = [Series(name=name, points=[(0.0, 1.0), (1.0, 2.0)]) for name in names]
        root = ET.fromstring(draw([Panel(title="t", x_label="x", y_label="y", series=lines)]))
        texts = [one for one in root.iter(f"{SVG}text") if one.text in names]
        bottom = float(root.get("height", ""))
        assert all(float(one.get("y", "")) <= bottom for one in texts)
        return [(float(one.get("x", "")), float(one.get("y", ""))) for one in texts]

    short = places(["SGD", "SAM", "XSAM", "GSAM"])
    assert [y for _, y in short] == [short[0][1]] * 3 + [short[3][1]]
    long = places(["a name of thirty letters or so", "b", "c"])
    assert len({y for _, y in long}) == 3
    middling = places(["batch 125 searched on 4", "b", "c"])
    assert middling[0][1] == middling[1][1] < middling[2][1]
    assert middling[1][0] - middling[0][0] > 6 * len("batch 125 searched on 4")


def test_plane__has_a_cell_for_each_value_and_the_circle_around_the_origin() -> None:
    heat = Heat(xs=[-1.0, 0.0, 1.0], ys=[-1.0, 0.0, 1.0], values=[[0.0, 1.0, 2.0]] * 3)
    panel = Panel(title="plane", x_label="x", y_label="y", heat=heat, circles=[0.5], is_square=True)
    panel.arrows.append(Arrow(name="g_0", start=(0.0, 0.0), end=(0.0, 0.5)))
    root = ET.fromstring(draw([panel]))
    cells = [one.get("fill") for one in root.iter(f"{SVG}rect")]
    assert len(cells) == 9
    assert cells[0] == cells[3] != cells[1]
    (circle,) = root.iter(f"{SVG}circle")
    middle = next(one for i, one in enumerate(root.iter(f"{SVG}rect")) if i == 4)
    assert float(circle.get("cx", "")) == pytest.approx(
        float(middle.get("x", "")) + float(middle.get("width", "")) / 2, abs=0.5
    )


@pytest.mark.parametrize("points", [[], [(1.0, 2.0)], [(1.0, 2.0), (2.0, 2.0)], [(0.0, float("nan")), (1.0, 1.0)]])
def test_thin_data__is_drawn_all_the_same(points: list[tuple[float, float]]) -> None:
    ET.fromstring(draw([Panel(title="t", x_label="x", y_label="y", series=[Series(name="a", points=points)])]))


def test_report__is_one_file_with_every_verdict_and_nothing_from_elsewhere() -> None:
    finding = Finding(
        verdict=Verdict.DOES_NOT,
        claim="c",
        caption="a <b> caption",
        estimates=[Estimate(name="XSAM - SAM over fresh seeds", value=-0.01, low=-0.02, high=-0.005, num=3)],
        panels=[Panel(title="t", x_label="x", y_label="y", series=[LINE])],
        columns=["x"],
        rows=[[1.0], [None]],
    )
    run = LabRunRead(
        id="abc",
        figure="3b",
        scale="digits",
        team="red",
        submitted_by="ann",
        state="succeeded",
        verdict=finding.verdict,
        num_stages=1,
        num_done=1,
        created_at=utc_now(),
        finished_at=utc_now(),
        spec={"figure": "3b", "scale": "digits", "base": {"batch_size": 8, "dataset": {"label_noise": 0}}},
        stages=[],
        failure=None,
        finding=finding,
    )
    text = as_html([run])
    assert "<td>batch_size=8, dataset.label_noise=0<td>" in text
    assert "does not hold" in text
    assert "-0.0100 (-0.0200 to -0.0050, n = 3)" in text
    assert "a &lt;b&gt; caption" in text
    assert "<svg" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
