"""Accumulation, BatchNorm statistics, compiled models: what a pass does besides the maths."""

import pytest
import torch
from torch import nn

from tests.xsam_core.problems import classification, largest_difference, same
from xsam_core import ASAM, GSAM, SAM, WSAM, XSAM, SGDPlus

ALL = [SAM, ASAM, WSAM, GSAM, SGDPlus, XSAM]


def build(problem, variant=XSAM, **options):
    return variant(problem.params, torch.optim.SGD, model=problem.model, lr=0.2, momentum=0.9, **options)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("variant", ALL)
def test_accumulation__micro_batches_equal_the_big_batch(variant, k):
    pieces, whole = classification(), classification()
    first, second = build(pieces, variant, ascent_steps=k), build(whole, variant, ascent_steps=k)
    for step in range(4):
        closures = [pieces.closure(step, slice(row, row + 2)) for row in range(0, 8, 2)]
        loss = first.step(closures)
        assert loss.item() == pytest.approx(second.step(whole.closure(step)).item(), rel=1e-12)
    assert largest_difference(pieces.snapshot(), whole.snapshot()) < 1e-9


def test_accumulation__weights_make_uneven_micro_batches_equal_the_big_batch():
    pieces, whole = classification(), classification()
    closures = [pieces.closure(0, slice(0, 6)), pieces.closure(0, slice(6, 8))]
    optimizer = build(pieces)
    optimizer.step(closures, weights=[0.75, 0.25])
    reference = build(whole)
    reference.step(whole.closure(0))
    assert largest_difference(pieces.snapshot(), whole.snapshot()) < 1e-9
    assert optimizer.telemetry.curve.losses == pytest.approx(reference.telemetry.curve.losses, rel=1e-9)


def test_batch_norm__statistics_come_from_the_first_pass_only():
    problem, plain = classification(batch_norm=True), classification(batch_norm=True)
    build(problem, ascent_steps=3).step(problem.closure(0))
    plain.model(plain.inputs[0])
    assert same(list(problem.model.buffers()), list(plain.model.buffers()))
    assert problem.model[1].num_batches_tracked.item() == 1


def test_batch_norm__cumulative_average_is_right():
    problem = classification(batch_norm=True)
    problem.model[1].momentum = None
    optimizer = build(problem)
    means = []
    for step in range(3):
        with torch.no_grad():
            means.append(problem.model[0](problem.inputs[step]).mean(0))
        optimizer.step(problem.closure(step), search_alpha=True)
    torch.testing.assert_close(problem.model[1].running_mean, torch.stack(means).mean(0))


@pytest.mark.parametrize("layer", [nn.SyncBatchNorm, nn.InstanceNorm1d])
def test_batch_norm__other_layers_with_statistics_are_frozen_too(layer):
    problem, plain = classification(), classification()
    for model in (problem.model, plain.model):
        model.insert(1, _Norm(layer))
    build(problem, ascent_steps=2).step(problem.closure(0))
    plain.model(plain.inputs[0])
    assert same(list(problem.model.buffers()), list(plain.model.buffers()))


class _Norm(nn.Module):
    """A norm over pairs of features, so that InstanceNorm has something to average."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        options = {"track_running_stats": True} if kind is nn.InstanceNorm1d else {}
        self.norm = kind(2, **options).double()

    def forward(self, x):
        return self.norm(x.view(len(x), 2, 4)).view(len(x), 8)


def test_batch_norm__frozen_by_its_owner_stays_frozen():
    problem = classification(batch_norm=True)
    problem.model[1].eval()
    before = [b.clone() for b in problem.model.buffers()]
    build(problem).step(problem.closure(0), search_alpha=True)
    assert same(before, list(problem.model.buffers()))
    assert problem.model[1].track_running_stats


def test_compile__compiled_model_walks_like_the_plain_one():
    torch.compiler.reset()
    compiled, plain = classification(batch_norm=True), classification(batch_norm=True)
    compiled.model = torch.compile(compiled.model, backend="aot_eager")
    first, second = build(compiled), build(plain)
    for step in range(3):
        first.step(compiled.closure(step), search_alpha=step == 0)
        second.step(plain.closure(step), search_alpha=step == 0)
    assert largest_difference(compiled.snapshot(), plain.snapshot()) < 1e-12
    assert same(list(compiled.model.buffers()), list(plain.model.buffers()))
    torch.compiler.reset()
