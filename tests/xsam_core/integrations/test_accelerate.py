"""The recipe for Accelerate, run with the real package."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.xsam_core.integrations.plain import (
    ACCUMULATION,
    MAX_NORM,
    NUM_ROWS,
    ROWS_PER_BATCH,
    ROWS_PER_STEP,
    assert_follows,
    data,
    import_or_skip,
    network,
    optimizer_of,
    walk,
)
from xsam_core import ArgumentError, ClosureError
from xsam_core.integrations.accelerate import backward

accelerate = import_or_skip("accelerate")
pytestmark = pytest.mark.filterwarnings("default")
STEPS_PER_EPOCH = NUM_ROWS // ROWS_PER_STEP


def lr_factor(step: int) -> float:
    return 0.9**step


class Training:
    def __init__(self, precision: str = "no", dtype: torch.dtype = torch.float32) -> None:
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
        self.accelerator = accelerate.Accelerator(
            cpu=True, gradient_accumulation_steps=ACCUMULATION, mixed_precision=precision
        )
        self.network = network(dtype)
        optimizer = optimizer_of(self.network)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor)
        loader = DataLoader(TensorDataset(*data(dtype)), batch_size=ROWS_PER_BATCH)
        prepared = self.accelerator.prepare(self.network, optimizer, loader, scheduler)
        self.model, self.optimizer, self.loader, self.scheduler = prepared
        self.losses: list[float] = []

    def epoch(self) -> None:
        criterion = nn.CrossEntropyLoss()
        for inputs, targets in self.loader:
            with self.accelerator.accumulate(self.model):
                loss = backward(
                    self.accelerator, self.optimizer, lambda x=inputs, y=targets: criterion(self.model(x), y)
                )
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), MAX_NORM)
                    self.losses.append(loss.item())
                self.optimizer.step()
                self.scheduler.step()
                self.optimizer.zero_grad()


# In float32 its clipping rounds otherwise, which sooner or later picks the next alpha of the grid.
@pytest.mark.parametrize("bf16", [False, True], ids=["float64", "bf16"])
def test_recipe__follows_the_plain_loop(bf16):
    dtype = torch.float32 if bf16 else torch.float64
    training = Training("bf16" if bf16 else "no", dtype)
    for _ in range(2):
        training.epoch()
    expected, losses, _ = walk(2 * STEPS_PER_EPOCH, bf16=bf16, lr_factor=lr_factor, dtype=dtype)
    assert training.losses == pytest.approx(losses, rel=2e-2 if bf16 else 1e-9)
    assert_follows(training.network, expected, bf16=bf16)


def test_recipe__saves_and_resumes_bit_equal(tmp_path):
    straight = Training()
    for _ in range(3):
        straight.epoch()
    broken = Training()
    broken.epoch()
    broken.accelerator.save_state(str(tmp_path), safe_serialization=False)
    resumed = Training()
    resumed.accelerator.load_state(str(tmp_path))
    for _ in range(2):
        resumed.epoch()
    for a, b in zip(straight.network.state_dict().values(), resumed.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert resumed.losses == straight.losses[STEPS_PER_EPOCH:]


def test_recipe__the_usual_loop_says_what_to_do():
    training = Training()
    inputs, targets = next(iter(training.loader))
    training.accelerator.gradient_state._set_sync_gradients(True)
    training.accelerator.backward(nn.functional.cross_entropy(training.model(inputs), targets))
    with pytest.raises(ClosureError, match="add_closure"):
        training.optimizer.step()


def test_backward__refuses_other_optimizers_and_fp16():
    training = Training()
    with pytest.raises(ArgumentError, match="one of xsam_core, got SGD"):
        backward(training.accelerator, torch.optim.SGD(network().parameters(), lr=0.1), lambda: None)
    training.accelerator.scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(ArgumentError, match="fp16"):
        backward(training.accelerator, training.optimizer, lambda: None)
