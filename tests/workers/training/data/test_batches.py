"""Batches of any structure: cut into micro-batches, and on their way to a device."""

from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.workers.training.runs import context_in
from xsam.workers.training.data.batches import moved, num_processes, split
from xsam.workers.training.errors import DatasetFormatError

Pair = namedtuple("Pair", "x y")
X, Y = torch.arange(8).view(4, 2), torch.arange(4)


@pytest.mark.parametrize(
    ("batch", "second"),
    [
        ((X, Y), (X[2:], Y[2:])),
        ([X, None], [X[2:], None]),
        ({"x": X, "names": ["a", "b", "c", "d"], "scale": 2.0}, {"x": X[2:], "names": ["c", "d"], "scale": 2.0}),
        (Pair(X, {"deep": Y}), Pair(X[2:], {"deep": Y[2:]})),
        ((X, torch.tensor(3.0), torch.ones(7)), (X[2:], torch.tensor(3.0), torch.ones(7))),
    ],
)
def test_split__cuts_what_has_an_entry_per_example(batch: Any, second: Any) -> None:
    parts = split(batch, 2)
    assert len(parts) == 2
    assert type(parts[1]) is type(second)
    assert str(parts[1]) == str(second)
    assert split(batch, 1) == [batch]


@pytest.mark.parametrize(
    ("batch", "message"), [((X, Y), "4 examples"), ((X, Y, object()), "not of object"), ("text", "a length")]
)
def test_split__of_what_can_not_be_cut_is_named(batch: Any, message: str) -> None:
    with pytest.raises(DatasetFormatError, match=message):
        split(batch, 3 if "examples" in message else 2)


def test_processes__are_all_cpus_unless_the_rank_trains_on_them() -> None:
    assert num_processes(context_in(Path(), num_threads=4)) == 3
    assert num_processes(context_in(Path(), num_threads=4, device="cuda:0")) == 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_moved__arrive_in_order_while_the_one_before_is_used() -> None:
    batches = [{"x": torch.full((1000, 1000), float(n)).pin_memory()} for n in range(8)]
    seen = [batch["x"] @ torch.eye(1000, device="cuda") for batch in moved(iter(batches), "cuda:0")]
    assert [one.mean().item() for one in seen] == [float(n) for n in range(8)]


def test_moved__on_the_cpu_is_nothing_but_the_batches() -> None:
    assert all(a is b for a, b in zip(moved(iter([X, Y]), "cpu"), [X, Y], strict=True))
