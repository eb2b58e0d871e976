"""Image folders: `train/CLASS/...` and `val/CLASS/...`, or Tiny-ImageNet's own layout."""

from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset
from torchvision.transforms.functional import pil_to_tensor

from xsam.services.specs.dataset import ImageFolder
from xsam.workers.messages import RankContext
from xsam.workers.training.data.feeds import Data, LoadedImages, Normalisation, Split
from xsam.workers.training.data.roots import require_files, root_of
from xsam.workers.training.errors import DatasetFormatError, DatasetMissingError

_IMAGENET = Normalisation(255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DRAFT_FACTOR = 2
"""A JPEG is decoded at no less than so many times the size wanted: what is resized from there looks the same."""
_ANNOTATIONS = "val_annotations.txt"
_REMEDY = "Put the images there as train/CLASS/FILE and val/CLASS/FILE (or in Tiny-ImageNet's layout)"

Sample = tuple[str, int]


class ImageFiles(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Decodes image files to uint8 RGB squares: the middle of each, resized."""

    def __init__(self, samples: list[Sample], image_size: int) -> None:
        self.samples = samples
        self._image_size = image_size

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return `(3, side, side)` uint8 and the label."""
        path, label = self.samples[index]
        try:
            with Image.open(path) as file:
                # JPEG decodes at a half, a quarter or an eighth of the size for a fraction of the time.
                file.draft("RGB", (DRAFT_FACTOR * self._image_size,) * 2)
                image = file.convert("RGB")
        except (UnidentifiedImageError, OSError) as e:
            raise DatasetFormatError(f"image {path} can't be read: {e}") from e
        return pil_to_tensor(self._squared(image)), label

    def _squared(self, image: Image.Image) -> Image.Image:
        """Resize the middle square alone: what would be cropped off is not computed."""
        side = min(image.size)
        left, top = ((length - side) / 2 for length in image.size)
        size = (self._image_size, self._image_size)
        return image.resize(size, Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))

    def __len__(self) -> int:
        return len(self.samples)


def read_image_folder(spec: ImageFolder, context: RankContext) -> Data:
    """List the files of both parts; they are decoded while training.

    Raises:
        DatasetMissingError: a folder is not there or holds no images.
        DatasetFormatError: the evaluation part names a class or a file that does not exist.
    """
    root = root_of(context, spec.name)
    folder = root / spec.folder
    train_folder, val_folder = folder / "train", folder / "val"
    require_files(f"{spec.name} {spec.folder}", root, [train_folder, val_folder], remedy=_REMEDY)
    try:
        classes, class_to_index = find_classes(str(train_folder))
        train = make_dataset(str(train_folder), class_to_index, extensions=IMG_EXTENSIONS)
        if (val_folder / _ANNOTATIONS).exists():
            evaluation = _annotated(val_folder, class_to_index)
        else:
            _check_classes(val_folder, class_to_index)
            evaluation = make_dataset(str(val_folder), class_to_index, extensions=IMG_EXTENSIONS, allow_empty=True)
    except FileNotFoundError as e:
        raise DatasetMissingError(f"dataset {spec.name} {spec.folder}: {e}. {_REMEDY}") from e
    if not evaluation:
        raise DatasetMissingError(f"dataset {spec.name} {spec.folder}: no images in {val_folder}. {_REMEDY}")
    return Data(
        train=_split(train, spec.image_size),
        evaluation=_split(evaluation, spec.image_size),
        image_size=spec.image_size,
        channels=3,
        num_classes=len(classes),
        normalisation=_IMAGENET,
    )


def _split(samples: list[Sample], image_size: int) -> Split:
    labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
    return Split(LoadedImages(ImageFiles(samples, image_size), torch.arange(len(samples))), labels)


def _check_classes(val_folder: Path, class_to_index: dict[str, int]) -> None:
    unknown = sorted({path.name for path in val_folder.iterdir() if path.is_dir()} - class_to_index.keys())
    if unknown:
        raise DatasetFormatError(f"{val_folder} has class {unknown[0]}, which the train folder does not have")


def _annotated(val_folder: Path, class_to_index: dict[str, int]) -> list[Sample]:
    """Read Tiny-ImageNet's list: file name, class and a box, separated by tabs."""
    annotations = val_folder / _ANNOTATIONS
    samples = []
    for number, line in enumerate(annotations.read_text().splitlines(), start=1):
        file_name, _, rest = line.partition("\t")
        class_name = rest.partition("\t")[0]
        if class_name not in class_to_index:
            raise DatasetFormatError(
                f"{annotations}, line {number}: class {class_name!r} has no folder in the train part"
            )
        path = val_folder / "images" / file_name
        if not path.is_file():
            raise DatasetFormatError(f"{annotations}, line {number}: {path} does not exist")
        samples.append((str(path), class_to_index[class_name]))
    return samples
