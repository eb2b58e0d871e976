import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from pydantic import TypeAdapter
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, resize

from tests.workers.training import dataset_files as files
from tests.workers.training.runs import context_in
from xsam.services.specs.dataset import DATASETS, Dataset
from xsam.workers.training.data.feeds import Data, Split
from xsam.workers.training.data.image_folder import ImageFiles
from xsam.workers.training.data.labels import with_label_noise
from xsam.workers.training.data.sources import READERS, prepare_data
from xsam.workers.training.errors import DatasetFormatError, DatasetMissingError, TargetError, TooFewExamplesError
from xsam.workers.training.ranks import Ranks

PACKAGE = "tests"
TARGET = f"{__name__}:squares"

CIFAR: dict[str, tuple[Any, Any, int]] = {
    "cifar10": (torchvision.datasets.CIFAR10, files.write_cifar10, 10),
    "cifar100": (torchvision.datasets.CIFAR100, files.write_cifar100, 100),
}


def prepare(spec: dict[str, Any], root: Path | None, seed: int = 0, **context_options: Any) -> Data:
    context = context_in(Path("unused"), dataset_root=root, **context_options)
    return prepare_data(TypeAdapter(Dataset).validate_python(spec), context, Ranks(context), seed=seed)


def images_of(split: Split) -> Tensor:
    return next(split.to(context_in(Path("unused"))).images.batches([torch.arange(len(split.labels))]))


def accept_md5_of(monkeypatch: pytest.MonkeyPatch, kind: Any, folder: Path) -> None:
    """Put the checksums of the files as they are now into torchvision's table, so that its check stays in force."""

    def digest(name: str) -> str:
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    for table in ("train_list", "test_list"):
        monkeypatch.setattr(kind, table, [[name, digest(name)] for name, _ in getattr(kind, table)])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": digest(kind.meta["filename"])})


def test_readers__are_those_a_job_may_name() -> None:
    assert READERS.keys() == DATASETS.keys()


def test_digits__are_those_of_scikit_learn() -> None:
    """They are read from its file."""
    data, theirs = prepare({"name": "digits"}, root=None), load_digits()
    ours = [
        (label, image)
        for split in (data.train, data.evaluation)
        for label, image in zip(split.labels.tolist(), images_of(split)[:, 0].tolist(), strict=True)
    ]
    assert sorted(ours) == sorted(zip(theirs.target.tolist(), theirs.images.tolist(), strict=True))


def test_digits__are_split_by_class_and_bundled() -> None:
    data = prepare({"name": "digits"}, root=None)
    facts = DATASETS["digits"]().facts()
    assert (len(data.train.labels), len(data.evaluation.labels)) == (facts.train_size, facts.eval_size)
    assert (data.image_size, data.channels, data.num_classes) == (8, 1, 10)
    shares = torch.bincount(data.evaluation.labels) / (
        torch.bincount(data.train.labels) + torch.bincount(data.evaluation.labels)
    )
    torch.testing.assert_close(shares, torch.full((10,), 0.2), atol=0.01, rtol=0)
    normalised = images_of(data.train) / 16
    assert abs(float(normalised.mean()) - data.normalisation.mean[0]) < 0.01
    assert abs(float(normalised.std()) - data.normalisation.std[0]) < 0.01


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_mnist_family__is_read_from_the_published_format(name: str, folder: str, tmp_path: Path) -> None:
    files.write_idx(tmp_path / folder / "raw")
    data = prepare({"name": name}, tmp_path)
    assert images_of(data.train).shape == (40, 1, 28, 28)
    assert images_of(data.evaluation).dtype == torch.uint8
    assert data.evaluation.labels.tolist() == [i % 10 for i in range(20)]


@pytest.mark.parametrize("name", CIFAR)
def test_cifar__is_read_from_the_published_format(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, write, num_classes = CIFAR[name]
    write(tmp_path / kind.base_folder)
    accept_md5_of(monkeypatch, kind, tmp_path / kind.base_folder)
    data = prepare({"name": name}, tmp_path)
    first_row = torch.from_numpy(files.random_rows(1)[0])
    assert torch.equal(images_of(data.train)[0], first_row.view(3, 32, 32))
    assert data.num_classes == num_classes
    assert int(data.train.labels.max()) == num_classes - 1


def test_cifar__with_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    files.write_cifar10(tmp_path / "cifar-10-batches-py")
    with pytest.raises(DatasetFormatError, match=r"dataset cifar10 in .* is damaged or incomplete"):
        prepare({"name": "cifar10"}, tmp_path)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("mnist", "MNIST/raw/train-images-idx3-ubyte"),
        ("fashion_mnist", "FashionMNIST/raw/train-images-idx3-ubyte"),
        ("cifar10", "cifar-10-batches-py/data_batch_1"),
        ("cifar100", "cifar-100-python/train"),
    ],
)
def test_missing_files__are_named_with_layout_and_remedy(name: str, missing: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetMissingError) as caught:
        prepare({"name": name}, tmp_path)
    message = str(caught.value)
    assert f"dataset {name}: {tmp_path / missing} does not exist" in message
    assert "XSAM_TRAINING__ALLOW_DOWNLOAD=true" in message
    assert "XSAM_TRAINING__DATASET_ROOT" in message


def test_missing_files__one_of_several_is_named(tmp_path: Path) -> None:
    files.write_idx(tmp_path / "MNIST" / "raw")
    files.compress(tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte")
    with pytest.raises(DatasetMissingError, match=r"t10k-labels-idx1-ubyte does not exist"):
        prepare({"name": "mnist"}, tmp_path)


def test_truncated_file__is_named_as_damaged(tmp_path: Path) -> None:
    files.write_idx(tmp_path / "MNIST" / "raw")
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DatasetFormatError, match=r"dataset mnist in .* is damaged"):
        prepare({"name": "mnist"}, tmp_path)


def test_no_dataset_root__names_the_setting() -> None:
    with pytest.raises(DatasetMissingError, match="XSAM_TRAINING__DATASET_ROOT"):
        prepare({"name": "mnist"}, root=None)


def test_download__that_fails_says_from_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(DatasetMissingError, match=r"dataset mnist can't be downloaded to .*127\.0\.0\.1"):
        prepare({"name": "mnist"}, tmp_path, allow_download=True)


def test_image_folder__decodes_resizes_and_crops(tmp_path: Path) -> None:
    files.write_image_folder(tmp_path / "pets")
    data = prepare({"name": "image_folder", "folder": "pets", "image_size": 16}, tmp_path)
    images = images_of(data.train)
    assert images.shape == (12, 3, 16, 16)
    assert data.train.labels.tolist() == [0] * 6 + [1] * 6
    assert data.evaluation.labels.tolist() == [0] * 3 + [1] * 3
    assert torch.equal(images.float().mean((1, 2, 3)) > 120, data.train.labels == 1)


def test_image_folder__decodes_large_jpegs_at_a_part_of_their_size(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(1600, 1200, 3)).cumsum(0).cumsum(1)
    pixels = np.uint8(255 * (noise - noise.min()) / np.ptp(noise))
    path = tmp_path / "large.jpg"
    Image.fromarray(pixels).save(path, quality=95)
    found, _ = ImageFiles([(str(path), 0)], 64)[0]
    with Image.open(path) as file:
        middle = file.convert("RGB").crop((0, 200, 1200, 1400))
    whole = pil_to_tensor(resize(middle, [64, 64]))
    difference = (found.float() - whole.float()).abs()
    assert found.shape == (3, 64, 64)
    assert 0 < difference.mean() < 1.0
    assert difference.max() <= 8


def test_image_folder__reads_tiny_imagenet_as_it_is(tmp_path: Path) -> None:
    files.write_tiny_imagenet(tmp_path / "tiny-imagenet-200")
    data = prepare({"name": "image_folder", "folder": "tiny-imagenet-200"}, tmp_path)
    assert data.num_classes == 2
    assert data.train.labels.tolist() == [0] * 5 + [1] * 5
    assert data.evaluation.labels.tolist() == [1, 0]
    assert torch.equal(images_of(data.evaluation).float().mean((1, 2, 3)) > 120, data.evaluation.labels == 1)


def test_image_folder__missing_folder_is_named_with_the_layout(tmp_path: Path) -> None:
    with pytest.raises(DatasetMissingError, match=r"pets/train does not exist.*train/CLASS/FILE"):
        prepare({"name": "image_folder", "folder": "pets"}, tmp_path)


def test_image_folder__empty_class_is_named(tmp_path: Path) -> None:
    files.write_image_folder(tmp_path / "pets")
    (tmp_path / "pets" / "train" / "bird").mkdir()
    with pytest.raises(DatasetMissingError, match="bird"):
        prepare({"name": "image_folder", "folder": "pets"}, tmp_path)


def test_image_folder__evaluation_class_without_training_images_is_named(tmp_path: Path) -> None:
    files.write_image_folder(tmp_path / "pets")
    files.write_jpeg(tmp_path / "pets" / "val" / "bird" / "0.jpg", 0)
    with pytest.raises(DatasetFormatError, match="class bird"):
        prepare({"name": "image_folder", "folder": "pets"}, tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val_0.JPEG\tunknown\t0\t0\t1\t1\n", "class 'unknown'"),
        ("gone.JPEG\tn01443537\t0\n", "gone.JPEG does not exist"),
    ],
)
def test_image_folder__bad_annotation_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    files.write_tiny_imagenet(tmp_path / "tiny")
    with (tmp_path / "tiny" / "val" / "val_annotations.txt").open("a") as file:
        file.write(line)
    with pytest.raises(DatasetFormatError, match=rf"line 3: .*{message}"):
        prepare({"name": "image_folder", "folder": "tiny"}, tmp_path)


def test_image_folder__file_that_is_no_image_is_named(tmp_path: Path) -> None:
    files.write_image_folder(tmp_path / "pets")
    (tmp_path / "pets" / "train" / "cat" / "3.jpg").write_text("not an image")
    data = prepare({"name": "image_folder", "folder": "pets", "image_size": 16}, tmp_path)
    with pytest.raises(DatasetFormatError, match=r"cat/3\.jpg can't be read"):
        images_of(data.train)


def test_synthetic__classes_can_be_learned_and_are_fixed_by_the_seed() -> None:
    spec = {"name": "synthetic", "num_train": 4000, "num_eval": 500, "num_classes": 5}
    data = prepare(spec, root=None)
    images, labels = images_of(data.train).flatten(1).float() / 255 - 0.5, data.train.labels
    solution = torch.linalg.lstsq(images, torch.nn.functional.one_hot(labels, 5).float()).solution
    evaluation = images_of(data.evaluation).flatten(1).float() / 255 - 0.5
    accuracy = ((evaluation @ solution).argmax(1) == data.evaluation.labels).float().mean()
    assert 0.4 < accuracy < 0.95
    assert torch.equal(images_of(prepare(spec, None).train), images_of(data.train))
    assert not torch.equal(images_of(prepare(spec, None, seed=1).train), images_of(data.train))


def test_label_noise__touches_training_labels_only() -> None:
    clean = prepare({"name": "digits"}, None)
    noisy = prepare({"name": "digits", "label_noise": 0.4}, None, seed=3)
    assert torch.equal(noisy.train.labels, with_label_noise(clean.train.labels, 0.4, 10, 3))
    assert torch.equal(noisy.evaluation.labels, clean.evaluation.labels)


def test_train_size__keeps_images_and_labels_together() -> None:
    clean = prepare({"name": "digits"}, None)
    small = prepare({"name": "digits", "train_size": 100}, None)
    assert torch.bincount(small.train.labels).tolist() == [10] * 10
    everything, subset = images_of(clean.train), images_of(small.train)
    for image, label in zip(subset, small.train.labels, strict=True):
        matches = (everything == image).all((1, 2, 3)).nonzero().squeeze(1)
        assert label in clean.train.labels[matches]


def test_train_size__beyond_the_dataset_is_refused(tmp_path: Path) -> None:
    files.write_image_folder(tmp_path / "pets")
    with pytest.raises(TooFewExamplesError, match=r"train_size is 13, but image_folder has 12"):
        prepare({"name": "image_folder", "folder": "pets", "train_size": 13}, tmp_path)


class Squares:
    """A team's own map-style dataset, with or without a `targets` attribute."""

    def __init__(self, number: int, *, side: int = 8, has_targets: bool = True, largest: int = 2) -> None:
        self._number, self._side, self._largest = number, side, largest
        if has_targets:
            self.targets = [self[index][1] for index in range(number)]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        label = index % (self._largest + 1)
        return torch.full((2, self._side, 8), float(label)), label

    def __len__(self) -> int:
        return self._number


def squares(root: Path | None, *, number: int = 9, **options: Any) -> tuple[Squares, Squares]:
    """What a job names as its target."""
    return Squares(number, **options), Squares(3, **{**options, "largest": 2})


@pytest.mark.parametrize("has_targets", [True, False])
def test_custom__takes_two_map_style_datasets(has_targets: bool) -> None:
    spec = {"name": "custom", "target": TARGET, "options": {"number": 6, "has_targets": has_targets}}
    data = prepare(spec, None, allowed_packages=(PACKAGE,))
    assert (data.channels, data.image_size, data.num_classes) == (2, 8, 3)
    assert data.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert torch.equal(images_of(data.train)[:, 0, 0, 0], data.train.labels.float())


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ({"target": "os.path:join"}, TargetError, r"package os is not allowed \(allowed: tests\)"),
        ({"target": f"{__name__}:gone"}, TargetError, "has no 'gone'"),
        ({"target": "tests.gone:factory"}, TargetError, "can't be imported"),
        ({"target": f"{__name__}:PACKAGE"}, TargetError, "must be callable"),
        ({"target": TARGET, "options": {"colour": 1}}, TargetError, "colour"),
        ({"target": TARGET, "options": {"side": 4}}, DatasetFormatError, r"shape \(2, 4, 8\)"),
        (
            {"target": TARGET, "options": {"largest": 1}},
            DatasetFormatError,
            "labels go from 0 to 2; allowed are 0 to 1",
        ),
    ],
)
def test_custom__unusable_target_is_refused_by_name(spec: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        prepare({"name": "custom", **spec}, None, allowed_packages=(PACKAGE,))


def test_validation_size__is_held_out_with_true_labels_for_every_seed_the_same() -> None:
    wanted = {"name": "digits", "validation_size": 100, "label_noise": 0.5, "train_size": 1000}
    whole = prepare({"name": "digits"}, None)
    first, second = (prepare(wanted, None, seed=seed) for seed in (0, 1))
    assert first.validation is not None
    assert second.validation is not None
    held_out = images_of(first.validation)
    assert torch.equal(held_out, images_of(second.validation))
    assert torch.equal(first.validation.labels, second.validation.labels)
    assert first.validation.labels.bincount().tolist() == [10] * 10
    assert torch.equal(first.evaluation.labels, whole.evaluation.labels)
    known = {
        image.tobytes(): int(label)
        for image, label in zip(images_of(whole.train).numpy(), whole.train.labels, strict=True)
    }
    assert [known[image.tobytes()] for image in held_out.numpy()] == first.validation.labels.tolist()
    trained_on = {image.tobytes() for image in images_of(first.train).numpy()}
    assert len(first.train.labels) == 1000
    assert not trained_on & {image.tobytes() for image in held_out.numpy()}


def test_validation_size__that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    files.write_image_folder(tmp_path / "pets")
    with pytest.raises(TooFewExamplesError, match=r"validation_size is 12, but image_folder has 12"):
        prepare({"name": "image_folder", "folder": "pets", "validation_size": 12}, tmp_path)
