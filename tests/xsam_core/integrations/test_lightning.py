"""The mixin for Lightning, trained with the real package."""

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

pl = import_or_skip("lightning.pytorch")
SharpnessAwareMixin = import_or_skip("xsam_core.integrations.lightning").SharpnessAwareMixin
pytestmark = pytest.mark.filterwarnings("default")
STEPS_PER_EPOCH = NUM_ROWS // ROWS_PER_STEP


class Classifier(pl.LightningModule):
    """An ordinary module, written for automatic optimization."""

    interval = "step"

    def __init__(self) -> None:
        super().__init__()
        self.network = network()
        self.losses: list[float] = []
        self.hooks: list[str] = []

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self.network(batch[0]).float(), batch[1])
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(batch[0]))
        return loss

    def on_before_optimizer_step(self, optimizer):
        self.hooks.append("before")

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if outputs:
            self.losses.append(outputs["loss"].item())

    def configure_optimizers(self):
        optimizer = optimizer_of(self, max_grad_norm=MAX_NORM)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": self.interval}}


class Robust(SharpnessAwareMixin, Classifier):
    num_micro_batches = ACCUMULATION


class RobustByEpoch(Robust):
    interval = "epoch"


def fit(module, folder, epochs: int, *, precision: str = "32-true", resume_from: str | None = None):
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        precision=precision,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )
    loader = DataLoader(TensorDataset(*data()), batch_size=ROWS_PER_BATCH)
    trainer.fit(module, loader, ckpt_path=resume_from, weights_only=True if resume_from else None)
    return trainer


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
def test_mixin__follows_the_plain_loop(tmp_path, bf16):
    module = Robust()
    trainer = fit(module, tmp_path, 2, precision="bf16-mixed" if bf16 else "32-true")
    expected, losses, _ = walk(2 * STEPS_PER_EPOCH, bf16=bf16, lr_factor=lambda step: 0.9**step)
    assert module.losses == pytest.approx(losses, rel=2e-2 if bf16 else 1e-4)
    assert_follows(module.network, expected, bf16=bf16)
    assert trainer.global_step == 2 * STEPS_PER_EPOCH
    assert module.hooks == ["before"] * trainer.global_step
    # Logged at theta_0 only: the mean of the last epoch's losses.
    assert trainer.callback_metrics["loss"].item() == pytest.approx(
        sum(module.losses[STEPS_PER_EPOCH:]) / STEPS_PER_EPOCH, rel=1e-2 if bf16 else 1e-5
    )


def test_mixin__steps_schedulers_by_epoch(tmp_path):
    module = RobustByEpoch()
    trainer = fit(module, tmp_path, 2)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.02 * 0.9**2)


def test_mixin__saves_and_resumes_bit_equal(tmp_path):
    straight, broken, resumed = Robust(), Robust(), Robust()
    fit(straight, tmp_path, 3)
    fit(broken, tmp_path, 1).save_checkpoint(tmp_path / "one.ckpt")
    fit(resumed, tmp_path, 3, resume_from=str(tmp_path / "one.ckpt"))
    assert resumed.losses == straight.losses[STEPS_PER_EPOCH:]
    for a, b in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_mixin__automatic_optimization_without_it_says_what_to_do(tmp_path):
    with pytest.raises(ClosureError, match="leave backward"):
        fit(Classifier(), tmp_path, 1)


def test_mixin__refuses_what_would_train_nothing_or_wrongly(tmp_path):
    with pytest.raises(TypeError, match="hides the one that takes the steps"):

        class Hidden(SharpnessAwareMixin):
            def training_step(self, batch, batch_idx):
                return None

    with pytest.raises(ArgumentError, match="automatic_optimization"):
        Robust().automatic_optimization = True

    class WithSGD(Robust):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    with pytest.raises(ArgumentError, match="one of xsam_core, got SGD"):
        fit(WithSGD(), tmp_path, 1)
