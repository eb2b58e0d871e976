from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models
from pydantic import TypeAdapter
from torch import nn

from tests.workers.training.runs import context_in
from xsam.services.specs.model import MODELS, Model
from xsam.workers.training.errors import TargetError, UserSpecError
from xsam.workers.training.models import BUILDERS, build_model

BUILT_IN = [name for name in MODELS if name != "custom"]
NEEDS_SIZE = [name for name in BUILT_IN if name != "timm" and MODELS[name]().min_image_size > 1]
TINY = "test_resnet"


def build(spec: dict[str, Any], image_size: int, channels: int = 1, num_classes: int = 7) -> nn.Module:
    torch.manual_seed(0)
    context = context_in(Path("unused"), allowed_packages=("tests",))
    model = TypeAdapter(Model).validate_python(spec)
    return build_model(model, context, image_size=image_size, channels=channels, num_classes=num_classes)


def test_builders__are_those_a_job_may_name() -> None:
    assert BUILDERS.keys() == MODELS.keys() - {"custom"}


@pytest.mark.parametrize("name", BUILT_IN)
def test_model__trains_on_its_smallest_images(name: str) -> None:
    image_size = 32 if name == "timm" else MODELS[name]().min_image_size
    model = build({"name": name, **({"architecture": TINY} if name == "timm" else {})}, image_size)
    images = torch.randn(2, 1, image_size, image_size, generator=torch.Generator().manual_seed(0))
    logits = model(images)
    assert logits.shape == (2, 7)
    nn.functional.cross_entropy(logits, torch.arange(2)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", NEEDS_SIZE)
def test_model__refuses_smaller_images(name: str) -> None:
    smallest = MODELS[name]().min_image_size
    with pytest.raises(UserSpecError, match=f"at least {smallest} pixels, but these have {smallest - 1}"):
        build({"name": name}, smallest - 1)


@pytest.mark.parametrize(("name", "side"), [("resnet18", 16), ("densenet121", 16)])
def test_cifar_stem__keeps_the_resolution_of_small_images(name: str, side: int) -> None:
    stem = {"resnet18": ["conv1", "maxpool"], "densenet121": ["features.conv0", "features.pool0"]}[name]
    images = torch.randn(2, 3, side, side)
    model = build({"name": name}, side, channels=3)
    for layer in stem:
        images = model.get_submodule(layer)(images)
    assert images.shape == (2, 64, side, side)


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_large_colour_images__get_torchvisions_own_network(name: str) -> None:
    torch.manual_seed(0)
    expected = getattr(torchvision.models, name)(num_classes=7).state_dict()
    actual = build({"name": name}, 96, channels=3).state_dict()
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vgg11_bn"])
@pytest.mark.parametrize("image_size", [32, 80])
def test_dropout__stands_before_the_head(name: str, image_size: int) -> None:
    with torch.device("meta"):
        model = build({"name": name, "dropout": 0.3}, image_size)
    rates = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
    assert rates
    assert set(rates) == {0.3}


@pytest.mark.parametrize(
    ("image_size", "patch", "padded"), [(8, 1, 8), (28, 4, 28), (30, 4, 32), (32, 4, 32), (64, 8, 64), (224, 16, 224)]
)
def test_vit__patch_size_follows_the_image(image_size: int, patch: int, padded: int) -> None:
    with torch.device("meta"):
        model = build({"name": "vit_b_16"}, image_size)
        logits = model(torch.empty(2, 1, image_size, image_size))
    vit = model if padded == image_size else model.get_submodule("vit")
    assert (vit.patch_size, vit.image_size) == (patch, padded)
    assert logits.shape == (2, 7)


def test_small_cnn__without_batch_norm_has_none() -> None:
    assert any(isinstance(m, nn.BatchNorm2d) for m in build({"name": "small_cnn"}, 8).modules())
    assert not any(
        isinstance(m, nn.BatchNorm2d) for m in build({"name": "small_cnn", "batch_norm": False}, 8).modules()
    )


def linear(*, num_classes: int, channels: int, image_size: int, bias: bool = True) -> nn.Module:
    """What a job names as its target."""
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, num_classes, bias=bias))


def no_model(**_: Any) -> str:
    return "no model"


def test_custom__is_built_from_facts_and_options() -> None:
    model = build({"name": "custom", "target": f"{__name__}:linear", "options": {"bias": False}}, 8, channels=2)
    assert [tuple(p.shape) for p in model.parameters()] == [(7, 128)]


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [("linear", {"depth": 3}, "depth"), ("no_model", {}, "returned str"), ("gone", {}, "has no 'gone'")],
)
def test_custom__unusable_target_is_refused_by_name(target: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        build({"name": "custom", "target": f"{__name__}:{target}", "options": options}, 8)


@pytest.mark.parametrize("architecture", ["test_vit", "test_convnext.r160_in1k"])
def test_timm__is_built_for_the_datas_size_channels_and_classes(architecture: str) -> None:
    model = build({"name": "timm", "architecture": architecture, "dropout": 0.2, "drop_path": 0.1}, 48, channels=1)
    assert model(torch.randn(2, 1, 48, 48)).shape == (2, 7)


def test_timm__unknown_name_is_told_with_similar_ones() -> None:
    with pytest.raises(UserSpecError, match=r"can't make 'resnet19'.*similar names: resnet"):
        build({"name": "timm", "architecture": "resnet19"}, 32)
