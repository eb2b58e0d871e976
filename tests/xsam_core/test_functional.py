"""The maths on lists of tensors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xsam_core.functional import add_scaled_, angle_between, dot, scale_, slerp_weights, sum_of_squares

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def lists(dtype: torch.dtype, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(3, 4), (), (5,), (2, 3, 4)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums__equal_the_loop_and_are_kept_in_float32_or_better(dtype):
    xs, ys = lists(dtype), lists(dtype, seed=1)
    square, product = sum_of_squares(xs), dot(xs, ys)
    assert square == pytest.approx(sum((x.double() ** 2).sum().item() for x in xs), rel=1e-5)
    expected = sum((x.double() * y.double()).sum().item() for x, y in zip(xs, ys, strict=True))
    assert product == pytest.approx(expected, rel=1e-5)


def test_dot__takes_any_memory_layout():
    images = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert dot([images], [images.contiguous()]) == pytest.approx(images.square().sum().item(), rel=1e-5)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_add_scaled__equals_the_loop(as_tensor):
    xs, ys = lists(torch.float64), lists(torch.float64, seed=1)
    expected = [x + 0.3 * y for x, y in zip(xs, ys, strict=True)]
    add_scaled_(xs, ys, torch.tensor(0.3, dtype=torch.float64) if as_tensor else 0.3)
    torch.testing.assert_close(xs, expected)


def test_scale__by_one_touches_nothing_and_by_nan_shows():
    xs = lists(torch.float64)
    before = [x.clone() for x in xs]
    scale_(xs, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(xs, before, strict=True))
    scale_(xs, math.nan)
    assert all(x.isnan().all() for x in xs)


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_angle__of_parallel_vectors_is_never_nan(seed):
    vector = torch.randn(100, generator=torch.Generator().manual_seed(seed))
    unit = vector / vector.norm()
    angle = angle_between(unit.dot(unit), unit.norm(), unit.norm())
    assert 0.0 <= angle.item() < 1e-3


@settings(deadline=None, derandomize=True)
@given(st.floats(0.0, math.pi - 1e-3), st.floats(0.0, 2.0))
def test_slerp__stays_on_the_unit_circle(angle, alpha):
    c0, c1 = (c.item() for c in slerp_weights(torch.tensor(angle, dtype=torch.float64), alpha))
    x, y = c0 + c1 * math.cos(angle), c1 * math.sin(angle)
    # v(alpha) is v0 turned by alpha * angle in the plane of v0 and v1.
    assert x == pytest.approx(math.cos(alpha * angle), abs=1e-9)
    if angle > 0:
        assert y == pytest.approx(math.sin(alpha * angle), abs=1e-9)


def test_angle__without_length_is_zero():
    zero, one = torch.tensor(0.0), torch.tensor(1.0)
    assert angle_between(zero, zero, one).item() == 0.0
    assert angle_between(zero, one, zero).item() == 0.0
    assert angle_between(zero, one, one).item() == pytest.approx(math.pi / 2)
