import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from xsam.services.studies import space as spaces
from xsam.services.studies.space import Dimension

DIMENSION: TypeAdapter[Dimension] = TypeAdapter(Dimension)
RHO = {"type": "log_uniform", "low": 0.01, "high": 0.5}
K = {"type": "choice", "values": [1, 2, 3]}
BATCH = {"type": "int", "low": 16, "high": 64, "step": 16}
LR = {"type": "uniform", "low": 0.1, "high": 0.3}
TWICE = {"type": "ratio", "of": "optimizer.rho", "factor": 2.0}
TIMES = {"type": "ratio", "of": "optimizer.rho", "factor": {"type": "uniform", "low": 1.0, "high": 3.0}}


def space(**dimensions):
    return {path.replace("__", "."): DIMENSION.validate_python(document) for path, document in dimensions.items()}


def test_axes__leave_out_ratios_with_a_fixed_factor():
    found = spaces.axes(space(optimizer__rho=RHO, optimizer__rho_max=TWICE))
    assert list(found) == ["optimizer.rho"]
    assert list(spaces.axes(space(optimizer__rho=RHO, optimizer__rho_max=TIMES))) == [
        "optimizer.rho",
        "optimizer.rho_max",
    ]


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=4, max_size=4))
def test_point_at__stays_inside_every_dimension(unit):
    point = spaces.point_at(space(rho=RHO, k=K, batch=BATCH, lr=LR), unit)
    assert 0.01 <= point["rho"] <= 0.5
    assert point["k"] in (1, 2, 3)
    assert point["batch"] in (16, 32, 48, 64)
    assert 0.1 <= point["lr"] <= 0.3


def test_point_at__is_even_in_the_logarithm():
    assert spaces.point_at(space(rho=RHO), [0.5])["rho"] == pytest.approx((0.01 * 0.5) ** 0.5, rel=1e-5)


def test_point_at__gives_every_integer_the_same_share():
    drawn = [spaces.point_at(space(batch=BATCH), [i / 400])["batch"] for i in range(400)]
    assert [drawn.count(value) for value in (16, 32, 48, 64)] == [100] * 4


def test_grid__is_every_combination_and_as_long_as_said():
    searched = space(rho=RHO, k=K, batch=BATCH)
    points = list(spaces.grid(searched, 3))
    assert len(points) == spaces.grid_size(searched, 3) == 3 * 3 * 3
    assert len({tuple(point.values()) for point in points}) == len(points)
    assert {point["rho"] for point in points} == {0.01, 0.0707107, 0.5}
    assert {point["batch"] for point in points} == {16, 48, 64}


def test_apply__puts_values_into_their_places_and_multiplies_ratios():
    base = {"optimizer": {"rho": 0.1, "rho_max": None, "base": {"lr": 1}}, "epochs": 3}
    searched = space(optimizer__rho=RHO, optimizer__rho_max=TIMES, optimizer__base__lr=LR)
    changed = spaces.apply(base, searched, {"optimizer.rho": 0.2, "optimizer.rho_max": 1.5, "optimizer.base.lr": 0.3})
    assert changed == {"optimizer": {"rho": 0.2, "rho_max": 0.3, "base": {"lr": 0.3}}, "epochs": 3}
    assert base["optimizer"]["rho"] == 0.1


def test_apply__takes_a_ratio_of_a_field_that_is_not_searched():
    base = {"optimizer": {"rho": 0.1, "rho_max": None}}
    assert spaces.apply(base, space(optimizer__rho_max=TWICE), {})["optimizer"]["rho_max"] == 0.2


@pytest.mark.parametrize("path", ["nothing.here", "epochs.deep"])
def test_apply__names_a_path_that_leads_nowhere(path):
    with pytest.raises(KeyError, match=path):
        spaces.apply({"epochs": 3}, {path: DIMENSION.validate_python(LR)}, {path: 1.0})


def test_corners__are_all_ends_of_a_few_axes_and_single_moves_of_many():
    assert len(spaces.corners(space(rho=RHO, k=K))) == 6
    many = {f"f{i}": DIMENSION.validate_python(LR) for i in range(12)}
    corners = spaces.corners(many)
    assert len(corners) == 13
    assert all({point[path] for point in corners} == {0.1, 0.3} for path in many)


@pytest.mark.parametrize(
    "document",
    [
        {"type": "uniform", "low": 1, "high": 1},
        {"type": "log_uniform", "low": 0, "high": 1},
        {"type": "int", "low": 5, "high": 2},
        {"type": "choice", "values": [1, 2, 1]},
        {"type": "choice", "values": []},
        {"type": "ratio", "of": "optimizer.rho", "factor": -2.0},
        {"type": "normal", "low": 0, "high": 1},
        {"type": "uniform", "low": 0, "high": 1, "step": 2},
    ],
)
def test_dimension__refuses_what_holds_no_values(document):
    with pytest.raises(ValidationError):
        DIMENSION.validate_python(document)


@pytest.mark.parametrize(
    ("wide", "narrow", "is_inside"),
    [
        ({**RHO, "high": 1.0}, RHO, True),
        ({**RHO, "low": 0.02}, RHO, False),
        (LR, RHO, False),
        ({"type": "choice", "values": [3, 2, 1, 5]}, K, True),
        ({"type": "choice", "values": [1, 2]}, K, False),
        ({**BATCH, "high": 128}, BATCH, True),
        ({**BATCH, "step": 8}, BATCH, True),
        ({**BATCH, "low": 8}, BATCH, False),
        ({**TWICE, "factor": 3.0}, TWICE, False),
        ({**TIMES, "factor": {"type": "uniform", "low": 0.5, "high": 3.0}}, TIMES, True),
        (TWICE, TIMES, False),
    ],
)
def test_contains__tells_whether_a_search_can_go_on(wide, narrow, is_inside):
    assert spaces.contains(DIMENSION.validate_python(wide), DIMENSION.validate_python(narrow)) is is_inside
