"""Weights from the model folder: what fits is taken, what does not is told."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from pydantic import TypeAdapter
from safetensors.torch import save_file
from torch import nn

from tests.workers.training.runs import WishAfter, context_in, run, spec_of
from xsam.services.specs.model import Model
from xsam.workers.messages import StopReason
from xsam.workers.training.errors import UserSpecError
from xsam.workers.training.models import build_model


def build(root: Path, spec: dict[str, Any], image_size: int = 96, channels: int = 3) -> nn.Module:
    torch.manual_seed(1)
    model = TypeAdapter(Model).validate_python(spec)
    context = context_in(root, model_root=root)
    return build_model(model, context, image_size=image_size, channels=channels, num_classes=7)


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return torchvision.models.resnet18().state_dict()


@pytest.mark.parametrize("form", ["safetensors", "pth", "wrapped"])
def test_weights__are_taken_but_for_the_head(form: str, published: dict[str, torch.Tensor], tmp_path: Path) -> None:
    name = "resnet18.safetensors" if form == "safetensors" else "resnet18.pth"
    if form == "safetensors":
        save_file(published, tmp_path / name)
    elif form == "pth":
        torch.save(published, tmp_path / name)
    else:
        named = {f"module.{key}": value for key, value in published.items()}
        torch.save({"state_dict": named, "epoch": 3}, tmp_path / name)
    found = build(tmp_path, {"name": "resnet18", "weights": name, "dropout": 0.1}).state_dict()
    same = {key for key in found if key in published and torch.equal(found[key], published[key])}
    assert set(found) - same == {"fc.1.weight", "fc.1.bias"}


def test_weights__of_a_small_or_grey_image_start_with_a_stem_of_their_own(
    published: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    save_file(published, tmp_path / "r.safetensors")
    found = build(tmp_path, {"name": "resnet18", "weights": "r.safetensors"}, 32, 1).state_dict()
    assert {key for key in found if not torch.equal(found[key], published.get(key, torch.empty(0)))} == {
        *("conv1.weight", "fc.weight", "fc.bias")
    }


def test_weights__of_timm(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    published = timm.create_model("test_resnet", num_classes=1000).state_dict()
    save_file(published, tmp_path / "t.safetensors")
    found = build(tmp_path, {"name": "timm", "architecture": "test_resnet", "weights": "t.safetensors"}).state_dict()
    assert {key for key in found if not torch.equal(found[key], published[key])} == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.pth", r"is not in the model folder .*there: other.safetensors, text.pth"),
        ("text.pth", "can't be read as weights"),
        ("other.safetensors", r"another network.*no such shape for bn1.*and 91 more; nothing to do with layer9.w"),
    ],
)
def test_weights__that_can_not_be_used_are_told(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    save_file({"layer9.w": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserSpecError, match=message):
        build(tmp_path, {"name": "resnet18", "weights": name})


def test_run__from_the_weights_of_an_earlier_one_starts_where_it_ended(tmp_path: Path) -> None:
    model: dict[str, Any] = {"name": "timm", "architecture": "test_resnet"}
    data = {"name": "synthetic", "image_size": 16, "num_train": 96, "num_eval": 32, "channels": 3}
    spec = spec_of(model=model, dataset=data, batch_size=32, epochs=2, optimizer={"variant": "sgd"})
    first = run(spec, tmp_path / "first")
    root = first.folder / "weights"
    tuned = spec.model_dump() | {"model": {**model, "weights": "last.safetensors"}, "epochs": 1}
    tuned |= {"optimizer": {"variant": "sgd", "base": {"name": "sgd", "lr": 1e-9}}}
    second = run(spec_of(**tuned), tmp_path / "second", model_root=root)
    # BatchNorm's statistics move on all the same.
    assert second.telemetry.epochs[0].eval_loss == pytest.approx(first.telemetry.epochs[-1].eval_loss, rel=0.2)
    stopped = run(spec_of(**tuned), tmp_path / "third", WishAfter(StopReason.PREEMPT, after=1), model_root=root)
    assert stopped.outcome.stopped_by == "preempt"
    assert run(spec_of(**tuned), tmp_path / "third", model_root=root).outcome.stopped_by is None
