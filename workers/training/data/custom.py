"""Datasets of a team's own: two map-style datasets of `(image, label)` out of one factory."""

from typing import Any

import torch
from torch import Tensor

from xsam.services.specs.dataset import CustomDataset
from xsam.workers.messages import RankContext
from xsam.workers.training.data.feeds import Data, LoadedImages, Normalisation, Split, as_image
from xsam.workers.training.errors import DatasetFormatError, TargetError
from xsam.workers.training.targets import load_target


def read_custom(spec: CustomDataset, context: RankContext) -> Data:
    """Call `target(root, **options)` and look at what it returned.

    Images are PIL images or square `(channels, side, side)` tensors or arrays, all of one size. uint8 pixels are
    scaled to [0, 1], floating ones are used as they are. Labels come from a `targets` attribute where there is one;
    otherwise every item is read once. The class count is the length of a `classes` attribute, or the largest
    training label plus one.

    Raises:
        TargetError: the factory is not allowed, fails on its options or returns something else.
        DatasetFormatError: the items are not as described.
    """
    factory = load_target(spec.target, context, needs_call=True)
    try:
        train, evaluation = factory(context.dataset_root, **spec.options)
    except (TypeError, ValueError) as e:
        raise TargetError(
            f"dataset.target {spec.target} with options {sorted(spec.options)}: {e}; "
            "it must return a training and an evaluation dataset"
        ) from e
    image = _first_image(train, spec.target)
    train_labels, eval_labels = _labels(train), _labels(evaluation)
    num_classes = len(train.classes) if hasattr(train, "classes") else int(train_labels.max()) + 1
    for labels in (train_labels, eval_labels):
        if labels.min() < 0 or labels.max() >= num_classes:
            raise DatasetFormatError(
                f"dataset.target {spec.target}: labels go from {int(labels.min())} to {int(labels.max())}; "
                f"allowed are 0 to {num_classes - 1}"
            )
    channels, side = image.shape[0], image.shape[-1]
    full_scale = 255.0 if image.dtype == torch.uint8 else 1.0
    return Data(
        train=Split(LoadedImages(train, torch.arange(len(train_labels))), train_labels),
        evaluation=Split(LoadedImages(evaluation, torch.arange(len(eval_labels))), eval_labels),
        image_size=side,
        channels=channels,
        num_classes=num_classes,
        normalisation=Normalisation(full_scale, (0.0,) * channels, (1.0,) * channels),
    )


def _first_image(dataset: Any, target: str) -> Tensor:
    image = as_image(dataset[0][0])
    if image.ndim != 3 or image.shape[1] != image.shape[2]:
        raise DatasetFormatError(
            f"dataset.target {target}: the first image has shape {tuple(image.shape)}; "
            "allowed are square images, (channels, side, side)"
        )
    return image


def _labels(dataset: Any) -> Tensor:
    targets = getattr(dataset, "targets", None)
    if targets is None:
        targets = [int(dataset[index][1]) for index in range(len(dataset))]
    return torch.as_tensor(targets, dtype=torch.int64)
