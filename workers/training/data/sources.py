"""The datasets a job may name: where each comes from, what it is normalised by, and what to do if it is missing."""

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.datasets
from torch import Tensor

from xsam.services.specs.dataset import CustomDataset, Dataset, Digits, ImageFolder, Synthetic
from xsam.workers.messages import RankContext
from xsam.workers.training.data.custom import read_custom
from xsam.workers.training.data.feeds import Data, Normalisation, Split, TensorImages
from xsam.workers.training.data.image_folder import read_image_folder
from xsam.workers.training.data.labels import balanced_subset, with_label_noise
from xsam.workers.training.data.roots import require_files, root_of
from xsam.workers.training.errors import DatasetFormatError, DatasetMissingError, TooFewExamplesError
from xsam.workers.training.random_state import generator_for
from xsam.workers.training.ranks import Ranks

DIGITS_EVAL_SHARE = 0.2
_DIGITS_FILE = "datasets/data/digits.csv.gz"
"""Of scikit-learn's package. To import that for one file would cost each rank a second of a core."""
VALIDATION_SEED = 0
SYNTHETIC_NOISE = 1.0
"""Standard deviation of the noise on a synthetic example's class scores, in units of the scores' own."""
# Mean and standard deviation of the training pixels, scaled to [0, 1].
_DIGITS = Normalisation(16.0, (0.3053,), (0.3760,))
_MNIST = Normalisation(255.0, (0.1307,), (0.3081,))
_FASHION_MNIST = Normalisation(255.0, (0.2860,), (0.3530,))
_CIFAR10 = Normalisation(255.0, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
_CIFAR100 = Normalisation(255.0, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))


def prepare_data(spec: Dataset, context: RankContext, ranks: Ranks, *, seed: int) -> Data:
    """Read a dataset and apply what the job says about its training part: which examples and labels.

    Raises:
        DatasetMissingError: its files are not where they were looked for.
        DatasetFormatError: its files can't be read.
        TargetError: a custom dataset's factory is not allowed or unusable.
        TooFewExamplesError: `train_size` or `validation_size` is larger than the dataset.
    """
    data = _read_in_turn(spec, context, ranks, seed)
    train, validation = _held_out(spec, data.train)
    if spec.train_size is not None:
        available = len(train.labels)
        if spec.train_size > available:
            raise TooFewExamplesError(
                f"dataset.train_size is {spec.train_size}, but {spec.name} has {available} training examples"
            )
        train = train.subset(balanced_subset(train.labels, spec.train_size, seed))
    if spec.label_noise > 0:
        train = Split(train.images, with_label_noise(train.labels, spec.label_noise, data.num_classes, seed))
    return replace(data, train=train, validation=validation)


def _held_out(spec: Dataset, train: Split) -> tuple[Split, Split | None]:
    """Return the examples to train on, and those that are held out: for every seed the same."""
    size, available = spec.validation_size, len(train.labels)
    if size is None:
        return train, None
    if size >= available:
        raise TooFewExamplesError(
            f"dataset.validation_size is {size}, but {spec.name} has {available} training examples; "
            f"allowed are at most {available - 1}"
        )
    chosen = balanced_subset(train.labels, size, VALIDATION_SEED)
    is_left = torch.ones(available, dtype=torch.bool)
    is_left[chosen] = False
    return train.subset(is_left.nonzero().squeeze(1)), train.subset(chosen)


def _read_in_turn(spec: Dataset, context: RankContext, ranks: Ranks, seed: int) -> Data:
    read = READERS[spec.name]
    if not context.allow_download:
        return read(spec, context, seed)
    # Rank 0 downloads, the others find the files there.
    if ranks.is_first:
        data = read(spec, context, seed)
        ranks.wait()
        return data
    ranks.wait()
    return read(spec, context, seed)


def _read_digits(spec: Digits, context: RankContext, seed: int) -> Data:
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise DatasetMissingError("dataset digits is a file of scikit-learn, which is not installed")
    rows = torch.from_numpy(np.loadtxt(Path(package.origin).parent / _DIGITS_FILE, delimiter=",", dtype=np.uint8))
    images = rows[:, :-1].reshape(-1, 1, 8, 8)
    labels = rows[:, -1].to(torch.int64)
    is_eval = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        members = (labels == label).nonzero().squeeze(1)
        is_eval[members[len(members) - round(DIGITS_EVAL_SHARE * len(members)) :]] = True
    return _in_memory((images[~is_eval], labels[~is_eval]), (images[is_eval], labels[is_eval]), 10, _DIGITS)


def _read_synthetic(spec: Synthetic, context: RankContext, seed: int) -> Data:
    generator = generator_for(seed, "synthetic")
    shape = (spec.channels, spec.image_size, spec.image_size)
    scorer = torch.randn(spec.num_classes, spec.channels * spec.image_size**2, generator=generator)

    def examples(number: int) -> tuple[Tensor, Tensor]:
        images = torch.randint(256, (number, *shape), generator=generator, dtype=torch.uint8)
        scores = (images.flatten(1).float() - 127.5) @ scorer.T
        noise = torch.randn(scores.shape, generator=generator)
        return images, (scores + SYNTHETIC_NOISE * scores.std() * noise).argmax(1)

    # Uniform on [0, 1]: mean 1/2, variance 1/12.
    normalisation = Normalisation(255.0, (0.5,) * spec.channels, (12**-0.5,) * spec.channels)
    return _in_memory(examples(spec.num_train), examples(spec.num_eval), spec.num_classes, normalisation)


def _torchvision_reader(
    kind: Callable[..., Any], paths: list[str], num_classes: int, normalisation: Normalisation
) -> Callable[[Any, RankContext, int], Data]:
    """Return a reader of a torchvision dataset whose files lie at `paths` below the dataset root."""

    def read(spec: Any, context: RankContext, seed: int) -> Data:
        root = root_of(context, spec.name)
        if not context.allow_download:
            remedy = (
                "Unpack the published files there, let the workers download them (XSAM_TRAINING__ALLOW_DOWNLOAD=true)"
            )
            require_files(spec.name, root, [root / path for path in paths], remedy=remedy)
        else:
            _download(kind, root, spec.name)
        parts = [_load(kind, root, is_train, spec.name) for is_train in (True, False)]
        return _in_memory(parts[0], parts[1], num_classes, normalisation)

    return read


def _download(kind: Callable[..., Any], root: Path, name: str) -> None:
    try:
        kind(root, download=True)
    except (RuntimeError, OSError) as e:
        raise DatasetMissingError(f"dataset {name} can't be downloaded to {root}: {' '.join(str(e).split())}") from e


def _load(kind: Callable[..., Any], root: Path, is_train: bool, name: str) -> tuple[Tensor, Tensor]:
    try:
        dataset = kind(root, train=is_train)
    except (RuntimeError, ValueError, OSError, AssertionError, EOFError) as e:
        # torchvision's checksums fail with RuntimeError, its readers with any of the others.
        raise DatasetFormatError(f"dataset {name} in {root} is damaged or incomplete: {e}") from e
    images = torch.as_tensor(dataset.data)
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return images, torch.as_tensor(dataset.targets, dtype=torch.int64)


def _in_memory(
    train: tuple[Tensor, Tensor],
    evaluation: tuple[Tensor, Tensor],
    num_classes: int,
    normalisation: Normalisation,
) -> Data:
    channels, side = train[0].shape[1], train[0].shape[-1]
    return Data(
        train=Split(TensorImages(train[0]), train[1]),
        evaluation=Split(TensorImages(evaluation[0]), evaluation[1]),
        image_size=side,
        channels=channels,
        num_classes=num_classes,
        normalisation=normalisation,
    )


def _read_image_folder(spec: ImageFolder, context: RankContext, seed: int) -> Data:
    return read_image_folder(spec, context)


def _read_custom(spec: CustomDataset, context: RankContext, seed: int) -> Data:
    return read_custom(spec, context)


def _idx_files(folder: str) -> list[str]:
    """Return the four files of the MNIST family, unpacked."""
    parts = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    return [f"{folder}/raw/{part}-ubyte" for part in parts]


_CIFAR10_FILES = [
    f"cifar-10-batches-py/{name}"
    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")
] + ["cifar-10-batches-py/test_batch", "cifar-10-batches-py/batches.meta"]
_CIFAR100_FILES = [f"cifar-100-python/{name}" for name in ("train", "test", "meta")]

READERS: dict[str, Callable[[Any, RankContext, int], Data]] = {
    "digits": _read_digits,
    "mnist": _torchvision_reader(torchvision.datasets.MNIST, _idx_files("MNIST"), 10, _MNIST),
    "fashion_mnist": _torchvision_reader(
        torchvision.datasets.FashionMNIST, _idx_files("FashionMNIST"), 10, _FASHION_MNIST
    ),
    "cifar10": _torchvision_reader(torchvision.datasets.CIFAR10, _CIFAR10_FILES, 10, _CIFAR10),
    "cifar100": _torchvision_reader(torchvision.datasets.CIFAR100, _CIFAR100_FILES, 100, _CIFAR100),
    "image_folder": _read_image_folder,
    "synthetic": _read_synthetic,
    "custom": _read_custom,
}
