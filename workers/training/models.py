"""The networks a job may name, built for the dataset's image size, channels and classes."""

import importlib
from collections import OrderedDict
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import torchvision.models
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from xsam.services.specs.model import CustomModel, DenseNet121, Mlp, Model, SmallCnn, Timm, Vgg11Bn, VitB16
from xsam.workers.messages import RankContext
from xsam.workers.training.errors import TargetError, UserSpecError
from xsam.workers.training.pretrained import load_pretrained
from xsam.workers.training.targets import load_target

SMALL_IMAGE_MAX = 64
"""Largest side in pixels for the CIFAR stem: a stride-1 3 x 3 convolution and no pooling (arXiv 1512.03385, 4.2)."""
VIT_PATCH = 16
VIT_PATCH_FROM = 224
VIT_PATCHES_PER_SIDE = 8


def build_model(spec: Model, context: RankContext, *, image_size: int, channels: int, num_classes: int) -> nn.Module:
    """Build the network on the CPU; its weights come from torch's global random state.

    Raises:
        UserSpecError: the images are too small for it, or its pretrained weights can't be had or do not fit.
        TargetError: a custom model's factory is not allowed or unusable.
    """
    if image_size < spec.min_image_size:
        raise UserSpecError(
            f"model {spec.name} needs images of at least {spec.min_image_size} pixels, but these have {image_size}"
        )
    if isinstance(spec, CustomModel):
        return _custom(spec, context, image_size=image_size, channels=channels, num_classes=num_classes)
    model = BUILDERS[spec.name](spec, image_size, channels, num_classes)
    weights: str | None = getattr(spec, "weights", None)
    if weights is not None:
        load_pretrained(model, weights, context)
    return model


def _small_cnn(spec: SmallCnn, image_size: int, channels: int, num_classes: int) -> nn.Module:
    side = image_size // 4

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        norm = [nn.BatchNorm2d(outputs)] if spec.batch_norm else []
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=not spec.batch_norm)
        # Pooling first: the largest of rectified values is the rectified largest, and a quarter is left to rectify.
        return [convolution, *norm, nn.MaxPool2d(2), nn.ReLU()]

    return nn.Sequential(
        *block(channels, spec.width),
        *block(spec.width, 2 * spec.width),
        nn.Flatten(),
        nn.Linear(2 * spec.width * side * side, num_classes),
    )


def _mlp(spec: Mlp, image_size: int, channels: int, num_classes: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    inputs = channels * image_size**2
    for hidden in spec.hidden:
        layers += [nn.Linear(inputs, hidden), nn.ReLU()]
        inputs = hidden
    return nn.Sequential(*layers, nn.Linear(inputs, num_classes))


def _resnet(factory: Callable[..., Any]) -> Callable[[Any, int, int, int], nn.Module]:
    def build(spec: Any, image_size: int, channels: int, num_classes: int) -> nn.Module:
        model = factory(num_classes=num_classes)
        is_small = image_size <= SMALL_IMAGE_MAX
        if is_small or channels != 3:
            model.conv1 = _stem(channels, is_small=is_small)
        if is_small:
            model.maxpool = nn.Identity()
        model.fc = _with_dropout(model.fc, spec.dropout)
        return model

    return build


def _densenet121(spec: DenseNet121, image_size: int, channels: int, num_classes: int) -> nn.Module:
    model = torchvision.models.densenet121(num_classes=num_classes)
    is_small = image_size <= SMALL_IMAGE_MAX
    if is_small or channels != 3:
        model.features.conv0 = _stem(channels, is_small=is_small)
    if is_small:
        model.features.pool0 = nn.Identity()
    model.classifier = _with_dropout(model.classifier, spec.dropout)
    return model


def _vgg11_bn(spec: Vgg11Bn, image_size: int, channels: int, num_classes: int) -> nn.Module:
    if image_size <= SMALL_IMAGE_MAX:
        return _small_vgg11_bn(spec, channels, num_classes)
    model = torchvision.models.vgg11_bn(num_classes=num_classes, dropout=spec.dropout)
    if channels != 3:
        model.features[0] = nn.Conv2d(channels, 64, 3, padding=1)
        _init_vgg(model.features[0])
    return model


def _small_vgg11_bn(spec: Vgg11Bn, channels: int, num_classes: int) -> nn.Module:
    # torchvision's head would stretch few features to 7 x 7 for 120 million weights that see nothing new.
    features = make_layers(cfgs["A"], batch_norm=True)
    features[0] = nn.Conv2d(channels, 64, 3, padding=1)
    head = nn.Linear(512, num_classes)
    model = nn.Sequential(
        OrderedDict(
            features=features,
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=_with_dropout(head, spec.dropout),
        )
    )
    for module in model.modules():
        _init_vgg(module)
    return model


def _init_vgg(module: nn.Module) -> None:
    """Initialise as torchvision's VGG does."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0, 0.01)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _vit_b_16(spec: VitB16, image_size: int, channels: int, num_classes: int) -> nn.Module:
    patch = VIT_PATCH if image_size >= VIT_PATCH_FROM else -(-image_size // VIT_PATCHES_PER_SIDE)
    padding = -image_size % patch
    model = torchvision.models.VisionTransformer(
        image_size=image_size + padding,
        patch_size=patch,
        num_layers=12,
        num_heads=12,
        hidden_dim=768,
        mlp_dim=3072,
        dropout=spec.dropout,
        num_classes=num_classes,
    )
    if channels != 3:
        model.conv_proj = nn.Conv2d(channels, 768, patch, stride=patch)
        nn.init.trunc_normal_(model.conv_proj.weight, std=(channels * patch**2) ** -0.5)
        nn.init.zeros_(model.conv_proj.bias)
    if padding == 0:
        return model
    return nn.Sequential(OrderedDict(pad=nn.ZeroPad2d((0, padding, 0, padding)), vit=model))


def _stem(channels: int, *, is_small: bool) -> nn.Conv2d:
    kernel, stride = (3, 1) if is_small else (7, 2)
    stem = nn.Conv2d(channels, 64, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    return stem


def _with_dropout(head: nn.Linear, dropout: float) -> nn.Module:
    return nn.Sequential(nn.Dropout(dropout), head) if dropout > 0 else head


def _timm(spec: Timm, image_size: int, channels: int, num_classes: int) -> nn.Module:
    try:
        timm = importlib.import_module("timm")  # an extra, and slow to load
    except ImportError as e:
        raise UserSpecError("model timm needs the package timm on this worker: pip install 'xsam[timm]'") from e
    options: dict[str, Any] = {"drop_path_rate": spec.drop_path} if spec.drop_path else {}
    known = timm.get_pretrained_cfg(spec.architecture)
    if known is not None and known.fixed_input_size:
        options["img_size"] = image_size
    try:
        return timm.create_model(
            spec.architecture, num_classes=num_classes, in_chans=channels, drop_rate=spec.dropout, **options
        )
    except (RuntimeError, TypeError, AssertionError) as e:
        similar = ", ".join(get_close_matches(spec.architecture, timm.list_models(), n=3)) or "see timm.list_models()"
        raise UserSpecError(f"model timm can't make {spec.architecture!r}: {e} (similar names: {similar})") from e


def _custom(spec: CustomModel, context: RankContext, *, image_size: int, channels: int, num_classes: int) -> nn.Module:
    factory = load_target(spec.target, context, needs_call=True)
    try:
        model = factory(num_classes=num_classes, channels=channels, image_size=image_size, **spec.options)
    except TypeError as e:
        raise TargetError(f"model.target {spec.target} with options {sorted(spec.options)}: {e}") from e
    if not isinstance(model, nn.Module):
        raise TargetError(f"model.target {spec.target} returned {type(model).__name__}; it must be a torch.nn.Module")
    return model


BUILDERS: dict[str, Callable[[Any, int, int, int], nn.Module]] = {
    "small_cnn": _small_cnn,
    "mlp": _mlp,
    "resnet18": _resnet(torchvision.models.resnet18),
    "resnet34": _resnet(torchvision.models.resnet34),
    "resnet50": _resnet(torchvision.models.resnet50),
    "vgg11_bn": _vgg11_bn,
    "densenet121": _densenet121,
    "vit_b_16": _vit_b_16,
    "timm": _timm,
}
