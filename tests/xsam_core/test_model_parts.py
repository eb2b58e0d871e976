"""What a step knows of the model: layers and buffers, told or found, now or later."""

import pytest
import torch
from torch import nn

from tests.xsam_core.problems import classification, same
from xsam_core import SAM, XSAM, ArgumentError


def test_batch_norm__is_frozen_without_a_model_too():
    problem, plain = classification(batch_norm=True), classification(batch_norm=True)
    optimizer = XSAM(problem.params, torch.optim.SGD, lr=0.1, ascent_steps=2)
    for step in range(2):
        before = [b.clone() for b in problem.model.buffers()]
        plain.model.load_state_dict(problem.model.state_dict())
        optimizer.step(problem.closure(step), search_alpha=True)
        plain.model(plain.inputs[step])
        assert same(list(problem.model.buffers()), list(plain.model.buffers()))
        assert not same(before, list(problem.model.buffers()))
    assert problem.model[1].num_batches_tracked.item() == 2


def test_batch_norm__of_a_compiled_model_is_frozen_without_a_model_too():
    torch.compiler.reset()
    problem, plain = classification(batch_norm=True), classification(batch_norm=True)
    compiled = torch.compile(problem.model, backend="aot_eager")
    optimizer = XSAM(problem.params, torch.optim.SGD, lr=0.1)
    optimizer.step(lambda: nn.functional.cross_entropy(compiled(problem.inputs[0]), problem.targets[0]))
    plain.model(plain.inputs[0])
    assert problem.model[1].num_batches_tracked.item() == 1
    torch.testing.assert_close(list(problem.model.buffers()), list(plain.model.buffers()))
    torch.compiler.reset()


def test_batch_norm__added_after_the_optimizer_is_frozen_too():
    problem = classification()
    optimizer = XSAM(problem.params, torch.optim.SGD, model=problem.model, lr=0.1)
    problem.model.insert(1, nn.BatchNorm1d(8).double())
    optimizer.step(problem.closure(0))
    assert problem.model[1].num_batches_tracked.item() == 1


@pytest.mark.parametrize("told", [True, False], ids=["told", "found"])
@pytest.mark.parametrize("wrap", [nn.utils.parametrizations.spectral_norm, nn.utils.spectral_norm])
def test_buffers__of_a_spectral_norm_come_from_the_first_pass_only(wrap, told):
    def model_of():
        torch.manual_seed(0)
        return nn.Sequential(wrap(nn.Linear(5, 8).double()), nn.Tanh(), nn.Linear(8, 3).double())

    problem, plain = classification(), model_of()
    problem.model = model_of()
    plain.load_state_dict(problem.model.state_dict())
    optimizer = XSAM(problem.params, torch.optim.SGD, model=problem.model if told else None, lr=0.0, ascent_steps=2)
    for step in range(2):
        optimizer.step(problem.closure(step), search_alpha=True)
        plain(problem.inputs[step])
        torch.testing.assert_close(list(problem.model.buffers()), list(plain.buffers()), rtol=0, atol=1e-12)


class Counting(nn.Module):
    """Replaces its buffer instead of writing into it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls = self.calls + 1
        return x


@pytest.mark.filterwarnings("default")
def test_buffers__that_are_replaced_come_from_the_first_pass_only():
    problem = classification()
    problem.model.append(Counting())
    optimizer = SAM(problem.params, torch.optim.SGD, model=problem.model, lr=0.1, ascent_steps=3)
    for step in range(2):
        optimizer.step(problem.closure(step))
    assert problem.model[-1].calls.item() == 2


def test_buffers__are_put_back_when_a_later_pass_fails():
    problem = classification()
    problem.model.append(Counting())
    optimizer = SAM(problem.params, torch.optim.SGD, model=problem.model, lr=0.1)
    calls = []

    def closure():
        calls.append(None)
        loss = problem.loss(0)
        if len(calls) == 2:
            raise KeyError
        return loss

    with pytest.raises(KeyError):
        optimizer.step(closure)
    assert problem.model[-1].calls.item() == 1


def test_watching__leaves_no_hook_behind():
    problem = classification()
    SAM(problem.params, torch.optim.SGD, lr=0.1).step(problem.closure(0))
    assert not nn.modules.module._global_forward_pre_hooks


def test_attach__replaces_the_model():
    problem, other = classification(), classification(batch_norm=True)
    optimizer = XSAM(problem.params + other.params, torch.optim.SGD, model=problem.model, lr=0.1)
    optimizer.step(problem.closure(0))
    optimizer.attach(other.model)
    optimizer.step(other.closure(0))
    assert other.model[1].num_batches_tracked.item() == 1


class FullyShardedDataParallel(nn.Module):
    """Stands in for FSDP1, which wants a process group."""

    def summon_full_params(self):
        raise NotImplementedError


def test_init__fsdp1_is_refused_by_name():
    problem = classification()
    with pytest.raises(ArgumentError, match="fully_shard"):
        SAM(problem.params, torch.optim.SGD, model=nn.Sequential(FullyShardedDataParallel()), lr=0.1)
