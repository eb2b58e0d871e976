"""Which networks a job may name, and what each needs of its images; the networks are built in workers."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from xsam.services.specs.base import Options, Spec

TARGET_PATTERN = r"^[A-Za-z_][\w]*(\.[A-Za-z_][\w]*)*:[A-Za-z_][\w]*$"
WeightsFile = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*\.(safetensors|pth|pt|bin)$", max_length=200
    ),
]
"""A file below the model folder: no absolute path, no '..'."""
Target = Annotated[str, StringConstraints(pattern=TARGET_PATTERN, max_length=200)]
"""`package.module:factory`, an importable callable of the team's own."""


class _Model(Spec):
    @property
    def min_image_size(self) -> int:
        """Smallest image side in pixels that the network takes."""
        return 1


class SmallCnn(_Model):
    """Two convolution blocks with BatchNorm and a linear head, for 8 x 8 to 32 x 32 images."""

    name: Literal["small_cnn"] = "small_cnn"
    width: Annotated[int, Field(ge=1, le=512)] = 16
    """Channels of the first block; the second has twice as many."""
    batch_norm: bool = True

    @property
    def min_image_size(self) -> int:
        """Two poolings halve the side twice."""
        return 4


class Mlp(_Model):
    """Fully connected network with ReLU."""

    name: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=8192)], ...], Field(max_length=16)] = (128, 128)
    """Units of each hidden layer."""


class _Torchvision(_Model):
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weights: WeightsFile | None = None
    """Pretrained weights to start from: a file below the operator's model folder (`XSAM_TRAINING__MODEL_ROOT`), as
    torchvision publishes them or as `xsam pull` brings them. The first and the last layer start anew where their
    shapes differ (other channels, another number of classes); everything else must fit."""


class ResNet18(_Torchvision):
    """torchvision's ResNet-18; images up to 64 pixels get the CIFAR stem (3 x 3 convolution, no pooling)."""

    name: Literal["resnet18"] = "resnet18"


class ResNet34(_Torchvision):
    """torchvision's ResNet-34; images up to 64 pixels get the CIFAR stem (3 x 3 convolution, no pooling)."""

    name: Literal["resnet34"] = "resnet34"


class ResNet50(_Torchvision):
    """torchvision's ResNet-50; images up to 64 pixels get the CIFAR stem (3 x 3 convolution, no pooling)."""

    name: Literal["resnet50"] = "resnet50"


class Vgg11Bn(_Torchvision):
    """torchvision's VGG-11 with BatchNorm; its five poolings need 32 pixels, up to 64 its head is one linear layer."""

    name: Literal["vgg11_bn"] = "vgg11_bn"

    @property
    def min_image_size(self) -> int:
        """Five poolings halve the side five times."""
        return 32


class DenseNet121(_Torchvision):
    """torchvision's DenseNet-121; images up to 64 pixels get the CIFAR stem."""

    name: Literal["densenet121"] = "densenet121"

    @property
    def min_image_size(self) -> int:
        """Three transitions halve the side three times."""
        return 8


class VitB16(_Torchvision):
    """torchvision's ViT-B; patches are 16 pixels from 224-pixel images on and an eighth of the side, rounded up, below.

    A side that the patch does not divide is padded.
    """

    name: Literal["vit_b_16"] = "vit_b_16"

    @property
    def min_image_size(self) -> int:
        """A side of eight patches of one pixel."""
        return 8


class Timm(_Torchvision):
    """Any image network of the timm package (the extra `timm`), by its name there; nothing is downloaded."""

    name: Literal["timm"] = "timm"
    architecture: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?$", max_length=100)]
    """As `timm.list_models()` has it: `convnext_tiny`, `vit_small_patch16_224`."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Stochastic depth, for architectures that have it."""


class CustomModel(_Model):
    """A network of the team's own: `target(num_classes=..., channels=..., image_size=..., **options)` returns it."""

    name: Literal["custom"] = "custom"
    target: Target
    options: Options = Field(default_factory=dict)


class TaskModel(_Model):
    """The network that the job's own code makes; it stands wherever a job has a `task`, and nowhere else."""

    name: Literal["task"] = "task"


Model = Annotated[
    SmallCnn | Mlp | ResNet18 | ResNet34 | ResNet50 | Vgg11Bn | DenseNet121 | VitB16 | Timm | CustomModel | TaskModel,
    Field(discriminator="name"),
]

MODELS: dict[str, type[_Model]] = {
    "small_cnn": SmallCnn,
    "mlp": Mlp,
    "resnet18": ResNet18,
    "resnet34": ResNet34,
    "resnet50": ResNet50,
    "vgg11_bn": Vgg11Bn,
    "densenet121": DenseNet121,
    "vit_b_16": VitB16,
    "timm": Timm,
    "custom": CustomModel,
}


def package_of(target: str) -> str:
    """Return the top-level package of a `package.module:factory` name."""
    return re.split(r"[.:]", target, maxsplit=1)[0]


def options_of(spec: Spec) -> dict[str, Any]:
    """Return everything a specification says besides its discriminating name."""
    return spec.model_dump(exclude={"name"})
