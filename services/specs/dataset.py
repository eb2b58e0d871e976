"""Which data a job may name, with the facts a submit is checked against; the data is read in workers."""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from xsam.services.specs.base import Options, Spec, field_error
from xsam.services.specs.model import Target

MAX_MADE_BYTES = 4_000_000_000
"""Pixels of a dataset that each worker makes in memory; while it is made it takes five times as much."""


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """Size and shape of a dataset; None where only the files can tell."""

    image_size: int | None
    channels: int | None
    num_classes: int | None
    train_size: int | None
    eval_size: int | None


class _Dataset(Spec):
    label_noise: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training labels redrawn uniformly over all classes, fixed by the seed; evaluation labels stay."""
    train_size: Annotated[int, Field(ge=1)] | None = None
    """Use only this many training examples, a class-balanced draw fixed by the seed; by default all of them."""
    # Left out of what is stored where it is not used: a dispatcher of a release without it reads it then.
    validation_size: Annotated[int, Field(ge=1)] | None = Field(default=None, exclude_if=lambda value: value is None)
    """Hold out this many training examples, a class-balanced draw that is the same for every seed, before anything else
    is drawn; each epoch is evaluated on them too, as `validation/accuracy` and `validation/loss`. Their labels stay."""
    augment: tuple[Literal["crop", "flip", "cutout"], ...] = ()
    """The paper's augmentation by name, applied in this order: crop (pad 1/8 and crop), flip (left-right), cutout."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each training label that is spread evenly over all classes (arXiv 1512.00567); evaluation's stay."""
    mixup: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Mix each training batch with itself in another order, images and labels, by a share drawn from Beta(a, a) with
    this a (arXiv 1710.09412); once a step, the same in all its passes. 0 does not; 0.2 is usual."""
    cutmix: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Likewise, but paste a rectangle of the other image of that share (arXiv 1905.04899); 1 is usual. With both each
    step does one of them, at even odds."""

    def facts(self) -> DatasetFacts:
        """Return what is known of the data before any file is read."""
        return DatasetFacts(None, None, None, None, None)


class Digits(_Dataset):
    """scikit-learn's 1,797 hand-written digits, 8 x 8 grey, bundled; the last 20 % of each class evaluate."""

    name: Literal["digits"] = "digits"

    def facts(self) -> DatasetFacts:
        """Return the bundled set's size."""
        return DatasetFacts(8, 1, 10, 1438, 359)


class Mnist(_Dataset):
    """MNIST through torchvision, 28 x 28 grey."""

    name: Literal["mnist"] = "mnist"

    def facts(self) -> DatasetFacts:
        """Return the published size."""
        return DatasetFacts(28, 1, 10, 60_000, 10_000)


class FashionMnist(_Dataset):
    """Fashion-MNIST through torchvision, 28 x 28 grey."""

    name: Literal["fashion_mnist"] = "fashion_mnist"

    def facts(self) -> DatasetFacts:
        """Return the published size."""
        return DatasetFacts(28, 1, 10, 60_000, 10_000)


class Cifar10(_Dataset):
    """CIFAR-10 through torchvision, 32 x 32 colour."""

    name: Literal["cifar10"] = "cifar10"

    def facts(self) -> DatasetFacts:
        """Return the published size."""
        return DatasetFacts(32, 3, 10, 50_000, 10_000)


class Cifar100(_Dataset):
    """CIFAR-100 through torchvision, 32 x 32 colour."""

    name: Literal["cifar100"] = "cifar100"

    def facts(self) -> DatasetFacts:
        """Return the published size."""
        return DatasetFacts(32, 3, 100, 50_000, 10_000)


FolderName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$", max_length=200),
]
"""A folder below the dataset root: no absolute path, no '..'."""


class ImageFolder(_Dataset):
    """Images in `train/CLASS/...` and `val/CLASS/...` below the dataset root.

    Tiny-ImageNet's own layout (`val/images` with `val_annotations.txt`, `train/CLASS/images`) is read as it is.
    """

    name: Literal["image_folder"] = "image_folder"
    folder: FolderName
    image_size: Annotated[int, Field(ge=8, le=1024)] = 64
    """Side in pixels to which every image is resized and cropped."""

    def facts(self) -> DatasetFacts:
        """Return what the job itself fixes: colour images of the size asked for."""
        return DatasetFacts(self.image_size, 3, None, None, None)


class Synthetic(_Dataset):
    """Random images whose class is a noisy linear function of them, made in memory; for load tests."""

    name: Literal["synthetic"] = "synthetic"
    image_size: Annotated[int, Field(ge=4, le=512)] = 8
    channels: Annotated[int, Field(ge=1, le=3)] = 1
    num_classes: Annotated[int, Field(ge=2, le=1000)] = 10
    num_train: Annotated[int, Field(ge=1, le=10_000_000)] = 1024
    num_eval: Annotated[int, Field(ge=1, le=1_000_000)] = 256

    def facts(self) -> DatasetFacts:
        """Return the size asked for."""
        return DatasetFacts(self.image_size, self.channels, self.num_classes, self.num_train, self.num_eval)

    @model_validator(mode="after")
    def _fits_in_memory(self) -> Self:
        num_bytes = (self.num_train + self.num_eval) * self.channels * self.image_size**2
        if num_bytes > MAX_MADE_BYTES:
            size = f"{self.channels} x {self.image_size} x {self.image_size}"
            raise field_error(
                "dataset.num_train",
                f"{self.num_train + self.num_eval:,} images of {size} are {num_bytes / 1e9:,.1f} GB, made in memory "
                f"by each worker; allowed are {MAX_MADE_BYTES / 1e9:g} GB of num_train and num_eval together",
            )
        return self


class CustomDataset(_Dataset):
    """Data of the team's own: `target(root, **options)` returns a training and an evaluation map-style dataset."""

    name: Literal["custom"] = "custom"
    target: Target
    options: Options = Field(default_factory=dict)


class TaskDataset(_Dataset):
    """The data that the job's own code reads; it stands wherever a job has a `task`, and nowhere else."""

    name: Literal["task"] = "task"


Dataset = Annotated[
    Digits | Mnist | FashionMnist | Cifar10 | Cifar100 | ImageFolder | Synthetic | CustomDataset | TaskDataset,
    Field(discriminator="name"),
]

DATASETS: dict[str, type[_Dataset]] = {
    "digits": Digits,
    "mnist": Mnist,
    "fashion_mnist": FashionMnist,
    "cifar10": Cifar10,
    "cifar100": Cifar100,
    "image_folder": ImageFolder,
    "synthetic": Synthetic,
    "custom": CustomDataset,
}
