"""Loops of the shape that people have: a trainer that owns the step, and manual optimization in a module.

Both are written out here, as those libraries write them, so that the optimizer is tested and not a dependency.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tests.xsam_core.problems import classification, same
from xsam_core import SAM, XSAM


class WrappedOptimizer(torch.optim.Optimizer):
    """As accelerate wraps optimizers: another Optimizer object that hands everything on."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    @property
    def state(self):
        return self.optimizer.state

    @property
    def param_groups(self):
        return self.optimizer.param_groups

    @property
    def defaults(self):
        return self.optimizer.defaults

    def zero_grad(self, set_to_none: bool | None = None) -> None:
        self.optimizer.zero_grad()

    def step(self, closure: Callable[[], Tensor] | None = None) -> Any:
        return self.optimizer.step(closure)

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state_dict)


class TrainerLikeHuggingFace:
    """create_optimizer by decay groups, create_scheduler, training_step, gradient accumulation, state."""

    def __init__(
        self, model: nn.Module, batches: list[dict[str, Tensor]], *, accumulation: int, max_steps: int
    ) -> None:
        self.model = model
        self.batches = batches
        self.accumulation = accumulation
        self.max_steps = max_steps
        self.optimizer: Any = None
        self.scheduler: Any = None
        self.log: list[dict[str, float]] = []
        self.global_step = 0

    def create_optimizer(self) -> None:
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": 0.01},
            {"params": others, "weight_decay": 0.0, "perturb": False},
        ]
        optimizer = XSAM(
            groups, torch.optim.AdamW, lr=0.02, rho=0.05, model=self.model, alpha_every=3, max_grad_norm=1.0
        )
        self.optimizer = WrappedOptimizer(optimizer)

    def create_scheduler(self) -> None:
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer.optimizer, lambda step: max(0.0, 1 - step / self.max_steps)
        )

    def compute_loss(self, inputs: dict[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(self.model(inputs["x"]), inputs["labels"])

    def training_step(self, micro_batches: list[dict[str, Tensor]]) -> Tensor:
        self.model.train()
        return self.optimizer.step([lambda inputs=inputs: self.compute_loss(inputs) for inputs in micro_batches])

    def micro_batches(self) -> Iterator[list[dict[str, Tensor]]]:
        for start in range(0, len(self.batches), self.accumulation):
            yield self.batches[start : start + self.accumulation]

    def train(self) -> None:
        self.create_optimizer()
        self.create_scheduler()
        while self.global_step < self.max_steps:
            for group in self.micro_batches():
                loss = self.training_step(group)
                self.scheduler.step()
                self.optimizer.zero_grad()
                self.global_step += 1
                self.log.append({"loss": loss.item(), "lr": self.scheduler.get_last_lr()[0]})


def test_hugging_face_loop__trains_with_scheduler_groups_and_accumulation():
    problem = classification()
    batches = [{"x": x, "labels": y} for x, y in zip(problem.inputs, problem.targets, strict=True)]
    trainer = TrainerLikeHuggingFace(problem.model, batches, accumulation=2, max_steps=20)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.log]
    assert len(losses) == 20
    assert sum(losses[-2:]) < 0.9 * sum(losses[:2])
    assert math.isclose(trainer.log[-1]["lr"], 0.0, abs_tol=1e-12)
    assert trainer.optimizer.state_dict()["param_groups"][1]["perturb"] is False


class OptimizerLikeLightning:
    """As Lightning hands optimizers to manual optimization: step goes through the strategy and precision plugin."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def step(self, closure: Callable[[], Any] | None = None, **kwargs: Any) -> Any:
        if closure is None:
            closure = _do_nothing
        return self._strategy_step(closure=closure, **kwargs)

    def _strategy_step(self, closure: Callable[[], Any], **kwargs: Any) -> Any:
        def wrapped_closure() -> Any:
            return closure()

        return self.optimizer.step(closure=wrapped_closure, **kwargs)


def _do_nothing() -> None:
    return None


class ModuleLikeLightning(nn.Module):
    """Manual optimization: the module takes its steps itself."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.automatic_optimization = False
        self.logged: dict[str, float] = {}

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = XSAM(self.network.parameters(), torch.optim.SGD, model=self.network, lr=0.2, momentum=0.9)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)}

    def optimizers(self) -> OptimizerLikeLightning:
        return OptimizerLikeLightning(self.configured["optimizer"])

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        inputs, targets = batch

        def closure() -> Tensor:
            return nn.functional.cross_entropy(self.network(inputs), targets)

        loss = self.optimizers().step(closure, search_alpha=batch_index == 0)
        self.logged["loss"] = loss.item()

    def on_train_epoch_end(self) -> None:
        self.configured["lr_scheduler"].step()

    def fit(self, batches: list[tuple[Tensor, Tensor]], epochs: int) -> list[float]:
        self.configured = self.configure_optimizers()
        losses = []
        for _ in range(epochs):
            for index, batch in enumerate(batches):
                self.training_step(batch, index)
            losses.append(self.logged["loss"])
            self.on_train_epoch_end()
        return losses


def test_lightning_loop__trains_with_manual_optimization():
    problem = classification()
    module = ModuleLikeLightning(problem.model)
    losses = module.fit(list(zip(problem.inputs, problem.targets, strict=True)), epochs=4)
    assert losses[-1] < losses[0]
    assert module.configured["optimizer"].param_groups[0]["lr"] == 0.05
    assert module.configured["optimizer"].telemetry.curve is None


def test_plain_loop__hands_on_what_a_user_loop_needs():
    """Evaluation between steps sees theta_0 of the next step, never a perturbed point."""
    problem = classification()
    optimizer = SAM(problem.params, torch.optim.SGD, rho=0.5, lr=0.1)
    for step in range(3):
        with torch.no_grad():
            evaluated = problem.loss(step).item()
        before = problem.snapshot()
        assert optimizer.step(problem.closure(step)).item() == evaluated
        assert not same(before, problem.snapshot())
