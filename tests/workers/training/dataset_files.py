"""Small datasets in the published file formats, for tests."""

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
from PIL import Image


def write_idx(folder: Path, num_train: int = 40, num_eval: int = 20) -> None:
    """The MNIST family's format: big-endian header, then bytes."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for part, number in (("train", num_train), ("t10k", num_eval)):
        images = generator.integers(0, 256, (number, 28, 28), dtype=np.uint8)
        labels = (np.arange(number) % 10).astype(np.uint8)
        header = struct.pack(">IIII", 0x803, number, 28, 28)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, number) + labels.tobytes())


def write_cifar10(folder: Path, num_per_file: int = 20) -> None:
    """CIFAR-10's python version: pickled rows of 3,072 bytes."""
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        _pickle(folder / name, {"data": random_rows(num_per_file), "labels": [i % 10 for i in range(num_per_file)]})
    _pickle(folder / "batches.meta", {"label_names": [f"class {i}" for i in range(10)]})


def write_cifar100(folder: Path, num_per_file: int = 200) -> None:
    """CIFAR-100's python version: fine and coarse labels."""
    folder.mkdir(parents=True)
    for name in ("train", "test"):
        labels = [i % 100 for i in range(num_per_file)]
        content = {"data": random_rows(num_per_file), "fine_labels": labels, "coarse_labels": [i // 5 for i in labels]}
        _pickle(folder / name, content)
    _pickle(folder / "meta", {"fine_label_names": [f"class {i}" for i in range(100)]})


def write_image_folder(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), per_class: int = 6) -> None:
    """`train/CLASS/FILE` and `val/CLASS/FILE`, images of several sizes and modes."""
    for part, number in (("train", per_class), ("val", per_class // 2)):
        for label, name in enumerate(classes):
            for index in range(number):
                mode = "L" if index == 0 else "RGB"
                write_jpeg(folder / part / name / f"{index}.jpg", label, size=(20 + index, 24), mode=mode)


def write_tiny_imagenet(folder: Path, classes: tuple[str, ...] = ("n01443537", "n01629819")) -> None:
    """Tiny-ImageNet's own layout: boxes beside the training images, one list for the evaluation part."""
    lines = []
    for label, name in enumerate(classes):
        for index in range(5):
            write_jpeg(folder / "train" / name / "images" / f"{name}_{index}.JPEG", label)
        (folder / "train" / name / f"{name}_boxes.txt").write_text(f"{name}_0.JPEG\t0\t0\t62\t62\n")
        write_jpeg(folder / "val" / "images" / f"val_{label}.JPEG", label)
        lines.append(f"val_{label}.JPEG\t{name}\t0\t0\t62\t62\n")
    # Not in the order of the classes.
    (folder / "val" / "val_annotations.txt").write_text("".join(reversed(lines)))


def write_jpeg(path: Path, label: int, size: tuple[int, int] = (64, 64), mode: str = "RGB") -> None:
    """An image whose brightness tells its class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    level = 60 + 120 * label
    Image.new(mode, size, level if mode == "L" else (level, level, level)).save(path, "JPEG")


def compress(path: Path) -> None:
    """Replace a file by its gzip, as it is published."""
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


def random_rows(number: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, 3072), dtype=np.uint8)


def _pickle(path: Path, content: dict[str, object]) -> None:
    path.write_bytes(pickle.dumps(content))
