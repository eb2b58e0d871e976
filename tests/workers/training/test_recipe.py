"""What a job may ask of the loop besides its optimizer: it does what it says, and an interruption changes no bit."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.workers.training.runs import RankPool, WishAfter, assert_equal_weights, context_in, run, spec_of
from tests.workers.training.test_resume import STEPS_PER_EPOCH, assert_same_run
from xsam.services.specs.job import JobSpec
from xsam.workers.messages import StopReason
from xsam.workers.training import stepping
from xsam.workers.training.build import Parts, build_parts
from xsam.workers.training.errors import UserSpecError
from xsam.workers.training.ranks import Ranks

RECIPES: dict[str, dict[str, Any]] = {
    "accumulated_clipped": {"recipe": {"micro_batches": 4, "max_grad_norm": 0.5}},
    "averaged": {"recipe": {"ema_decay": 0.9}},
    "mixed": {"dataset": {"mixup": 0.4, "cutmix": 1.0, "label_smoothing": 0.1, "augment": ["crop"]}},
    "fp16": {"precision": "fp16", "recipe": {"micro_batches": 2, "max_grad_norm": 1.0}},
    "spared_frozen": {
        "parameters": {"no_decay": ["norms", "biases"], "no_perturb": ["norms"], "freeze": ["0.*"]},
        "schedule": {"name": "one_cycle"},
        "speed": {"channels_last": True},
    },
}
EVERYTHING = {
    "precision": "bf16",
    "recipe": {"micro_batches": 2, "max_grad_norm": 0.5, "ema_decay": 0.9},
    "dataset": {"mixup": 0.4, "cutmix": 1.0},
    "parameters": {"no_decay": ["norms", "biases"], "no_perturb": ["norms", "biases"]},
    "schedule": {"name": "linear", "warmup_epochs": 0.5},
    "speed": {"channels_last": True},
}
SMALL = {
    "model": {"name": "small_cnn", "width": 4},
    "batch_size": 48,
    "epochs": 2,
}


def with_recipe(recipe: dict[str, Any], optimizer: dict[str, Any], **fields: Any) -> JobSpec:
    dataset = {"name": "digits", "train_size": 240, **recipe.get("dataset", {})}
    return spec_of(**{**SMALL, **recipe, **fields, "dataset": dataset, "optimizer": optimizer})


def parts_of(folder: Path, **fields: Any) -> Parts:
    context = context_in(folder)
    return build_parts(spec_of(**fields), context, Ranks(context))


@pytest.mark.parametrize("variant", ["sgd", "xsam"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_resume__is_bit_equal(recipe: str, variant: str, tmp_path: Path) -> None:
    spec = with_recipe(RECIPES[recipe], {"variant": variant, "base": {"name": "sgd", "weight_decay": 0.01}})
    whole = run(spec, tmp_path / "whole")
    first = run(spec, tmp_path / "parts", WishAfter(StopReason.PREEMPT, after=3))
    second = run(spec, tmp_path / "parts", WishAfter(StopReason.PAUSE, after=5))
    third = run(spec, tmp_path / "parts")
    assert [part.outcome.stopped_by for part in (first, second, third)] == ["preempt", "pause", None]
    assert 0 < first.outcome.summary.step < second.outcome.summary.step < 2 * STEPS_PER_EPOCH
    assert_same_run([first, second, third], whole)
    assert_equal_weights(_best(tmp_path / "parts"), _best(tmp_path / "whole"))


@pytest.mark.parametrize("variant", ["sgd", "xsam"])
def test_resume__of_two_ranks_with_everything_is_bit_equal(variant: str, tmp_path: Path, two_ranks: RankPool) -> None:
    spec = with_recipe(EVERYTHING, {"variant": variant}, resources={"num_workers": 2})
    whole = two_ranks.run(spec, tmp_path / "whole")
    first = two_ranks.run(spec, tmp_path / "parts", WishAfter(StopReason.PREEMPT, after=2))
    rest = two_ranks.run(spec, tmp_path / "parts")
    assert first[0].outcome.stopped_by == "preempt"
    assert_same_run([first[0], rest[0]], whole[0])


def test_compiled_run__learns_and_resumes_bit_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Inductor takes a minute to compile; everything before it is torch.compile's own.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    spec = with_recipe({"speed": {"compile": True}, "model": {"name": "mlp", "hidden": [8]}}, {"variant": "xsam"})
    whole = run(spec, tmp_path / "whole")
    first = run(spec, tmp_path / "parts", WishAfter(StopReason.PREEMPT, after=3))
    rest = run(spec, tmp_path / "parts")
    assert_same_run([first, rest], whole)
    plain = run(spec.model_copy(update={"speed": spec.speed.model_copy(update={"compile": False})}), tmp_path / "plain")
    assert whole.telemetry.epochs[0].train_loss == pytest.approx(plain.telemetry.epochs[0].train_loss, rel=1e-4)
    assert whole.weights.keys() == plain.weights.keys()


@pytest.mark.parametrize("variant", ["sgd", "xsam"])
def test_micro_batches__give_the_gradient_of_the_whole_batch(variant: str, tmp_path: Path) -> None:
    model = {"model": {"name": "mlp", "hidden": [8]}}
    whole = run(with_recipe(model, {"variant": variant}), tmp_path / "whole")
    parts = run(with_recipe({**model, "recipe": {"micro_batches": 6}}, {"variant": variant}), tmp_path / "parts")
    for name, weight in whole.weights.items():
        torch.testing.assert_close(parts.weights[name], weight, rtol=1e-3, atol=1e-4)
    ours, theirs = parts.telemetry.epochs[-1], whole.telemetry.epochs[-1]
    assert ours.train_accuracy == pytest.approx(theirs.train_accuracy, abs=0.01)
    assert ours.grad_evals == theirs.grad_evals


def test_micro_batches__of_a_task_weigh_what_it_counts(tmp_path: Path) -> None:
    """Losses that are means over tokens add up to the mean over all tokens."""
    parts = parts_of(tmp_path, recipe={"micro_batches": 2}, optimizer={"variant": "sgd"}, model={"name": "mlp"})
    weight = nn.Parameter(torch.ones(()))
    tokens = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0])]

    class Task:
        def loss(self, model: nn.Module, batch: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
            return (weight * torch.cat([tokens[index] for index in batch])).mean(), {}

        def length(self, batch: torch.Tensor) -> int:
            return sum(len(tokens[index]) for index in batch)

    optimizer = torch.optim.SGD([weight], lr=0.1)
    own = Parts(Task(), parts.train_feed, {}, parts.model, parts.model, optimizer, None, None, [])
    stepper = stepping.Stepper(spec_of(batch_size=2, recipe={"micro_batches": 2}), own, "cpu")
    stepped = stepper.step(torch.tensor([0, 1]), number=0, search_alpha=False)
    assert stepped.loss.item() == pytest.approx(4.0)
    assert weight.item() == pytest.approx(1 - 0.1 * 4.0)


@pytest.mark.parametrize("variant", ["sgd", "xsam"])
def test_max_grad_norm__bounds_what_a_step_moves(variant: str, tmp_path: Path) -> None:
    base = {"name": "sgd", "lr": 0.5, "momentum": 0.0}
    spec = with_recipe({"recipe": {"max_grad_norm": 0.01}}, {"variant": variant, "base": base}, epochs=1)
    before = parts_of(tmp_path / "before", **spec.model_dump()).model.state_dict()
    first = run(spec, tmp_path, WishAfter(StopReason.PREEMPT, after=1))
    after = load_file(first.folder / "checkpoints" / "step-000000001" / "model.safetensors")
    names = [name for name in before if "running" not in name and "tracked" not in name]
    moved = torch.stack([(after[name] - before[name]).norm() for name in names]).norm().item()
    assert moved == pytest.approx(0.5 * 0.01, rel=1e-2)


def test_average__follows_the_weights_and_is_what_is_evaluated_and_exported(tmp_path: Path) -> None:
    plain = with_recipe({}, {"variant": "sgd"}, epochs=1)
    averaged = with_recipe({"recipe": {"ema_decay": 0.5}}, {"variant": "sgd"}, epochs=1)
    seen = []
    for after in range(1, STEPS_PER_EPOCH):
        folder = tmp_path / str(after)
        run(plain, folder, WishAfter(StopReason.PREEMPT, after=after))
        seen.append(load_file(folder / "checkpoints" / f"step-{after:09d}" / "model.safetensors"))
    trained, ran = run(plain, tmp_path / "plain"), run(averaged, tmp_path / "averaged")
    seen.append(trained.weights)
    expected = parts_of(tmp_path, **plain.model_dump()).model.state_dict()
    for step, weights in enumerate(seen):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = {name: decay * expected[name] + (1 - decay) * weights[name] for name in weights}
    for name, value in ran.weights.items():
        if "tracked" not in name:
            torch.testing.assert_close(value, expected[name], msg=name)
    checkpoint = ran.folder / "checkpoints" / f"step-{STEPS_PER_EPOCH:09d}"
    assert_equal_weights(load_file(checkpoint / "model.safetensors"), trained.weights)
    assert ran.telemetry.epochs[0].eval_loss != trained.telemetry.epochs[0].eval_loss
    assert_equal_weights(_best(ran.folder), ran.weights)


def test_fp16__searches_again_after_a_step_that_overflowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scaler = torch.amp.GradScaler
    monkeypatch.setattr("xsam.workers.training.build.GradScaler", lambda device: scaler(device, init_scale=2.0**40))
    ran = run(with_recipe({"precision": "fp16"}, {"variant": "xsam"}, epochs=6), tmp_path)
    assert ran.telemetry.alphas[0].step > 1
    assert ran.telemetry.epochs[-1].train_loss < ran.telemetry.epochs[0].train_loss
    assert torch.isfinite(ran.weights["0.weight"]).all()


def test_frozen_parameters__stay_with_their_statistics(tmp_path: Path) -> None:
    spec = with_recipe({"parameters": {"freeze": ["0.*", "1.*"]}}, {"variant": "xsam"})
    before = parts_of(tmp_path / "before", **spec.model_dump()).model.state_dict()
    after = run(spec, tmp_path).weights
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if name.startswith(("0.", "1."))}


@pytest.mark.parametrize(("patterns", "message"), [(["nothing.*"], "fits no parameter"), (["*"], "nothing to train")])
def test_freeze__that_makes_no_sense_is_named(patterns: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserSpecError, match=message):
        run(with_recipe({"parameters": {"freeze": patterns}}, {"variant": "sgd"}), tmp_path)


def test_groups__spare_norms_and_biases(tmp_path: Path) -> None:
    fields = {"no_decay": ["norms", "biases"], "no_perturb": ["norms"]}
    optimizer = {"variant": "sam", "base": {"name": "sgd", "weight_decay": 0.1}}
    parts = parts_of(tmp_path, parameters=fields, optimizer=optimizer, model={"name": "small_cnn"})
    names = {id(parameter): name for name, parameter in parts.model.named_parameters()}
    found = {
        names[id(parameter)]: (group["weight_decay"], group["perturb"])
        for group in parts.optimizer.param_groups
        for parameter in group["params"]
    }
    assert found == {
        **dict.fromkeys(["0.weight", "4.weight", "9.weight"], (0.1, True)),
        **dict.fromkeys(["1.weight", "1.bias", "5.weight", "5.bias"], (0.0, False)),
        "9.bias": (0.0, True),
    }


def test_channels_last__is_how_convolutions_keep_their_weights(tmp_path: Path) -> None:
    parts = parts_of(tmp_path, speed={"channels_last": True}, model={"name": "small_cnn"})
    assert parts.model[4].weight.is_contiguous(memory_format=torch.channels_last)
    images, _ = next(iter(parts.train_feed.batches(0, 0)))
    assert parts.model[:2](images).is_contiguous(memory_format=torch.channels_last)


def test_checkpoint__from_before_a_field_was_there_is_gone_on_from(tmp_path: Path) -> None:
    spec = with_recipe({}, {"variant": "xsam"})
    run(spec, tmp_path, WishAfter(StopReason.PREEMPT, after=2))
    path = tmp_path / "checkpoints" / "step-000000002" / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in ("recipe", "parameters", "speed"):
        del manifest["identity"][name]
    del manifest["identity"]["dataset"]["mixup"]
    path.write_text(json.dumps(manifest))
    assert run(spec, tmp_path).telemetry.starts[0].first_step == 3


def _best(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights" / "best.safetensors")
