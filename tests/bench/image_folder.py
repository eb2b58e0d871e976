"""Images a second out of an image folder, against torchvision's ImageFolder with as many loader processes.

`python -m tests.bench.image_folder [--images N] [--processes N]`: both take turns, an epoch each.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from tests.bench.bare_loop import NoWish
from tests.bench.core_timing import table
from xsam.services.specs.dataset import ImageFolder as ImageFolderSpec
from xsam.services.specs.job import JobSpec
from xsam.workers.messages import RankContext
from xsam.workers.training.data.feeds import TrainFeed
from xsam.workers.training.data.sources import prepare_data
from xsam.workers.training.loop import run_training
from xsam.workers.training.ranks import Ranks
from xsam.workers.training.telemetry import SilentTelemetry

SIDE, BATCH = 224, 32
NUM_DIFFERENT = 16
FILE_SIZES = {"500 x 375": (500, 375), "1600 x 1200": (1600, 1200)}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def write(root: Path, number: int, file_size: tuple[int, int]) -> None:
    """Write JPEGs, half of them of each class; a few different ones again and again."""
    draw = np.random.default_rng(0)
    for part, size in (("train", number), ("val", 8)):
        for index in range(size):
            path = root / "photos" / part / f"class{index % 2}" / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            if index >= NUM_DIFFERENT:
                path.write_bytes(
                    (root / "photos" / part / f"class{index % 2}" / f"{index % NUM_DIFFERENT}.jpg").read_bytes()
                )
                continue
            walk = draw.normal(size=(file_size[1], file_size[0], 3)).cumsum(0).cumsum(1)
            Image.fromarray(np.uint8(255 * (walk - walk.min()) / np.ptp(walk))).save(path, quality=90)


def rate(batches: object, number: int) -> float:
    """Return images a second over all batches."""
    started_at = time.perf_counter()
    for images, _ in batches:  # type: ignore[attr-defined]
        images.sum()
    return number / (time.perf_counter() - started_at)


def waited(root: Path, num_processes: int) -> float:
    """Return the share of training in which steps of a ResNet-18 wait for data."""
    spec = {
        "dataset": {"name": "image_folder", "folder": "photos", "image_size": SIDE},
        "model": {"name": "resnet18"},
        "batch_size": BATCH,
        "epochs": 1,
        "optimizer": {"variant": "sgd"},
    }
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Path(folder) / "job" / "checkpoints"
        context = RankContext(0, 1, "cpu", root, checkpoints, num_threads=num_processes + 1)
        summary = run_training(JobSpec.model_validate(spec), context, SilentTelemetry(), NoWish()).summary
    return (summary.data_wait_s or 0.0) / summary.train_s


def compared(root: Path, number: int, processes: int, rounds: int) -> tuple[float, float]:
    """Return the median images a second of our feed and of torchvision's folder, taken in turns."""
    context = RankContext(0, 1, "cpu", root, root, num_threads=processes + 1)
    data = prepare_data(ImageFolderSpec(folder="photos", image_size=SIDE), context, Ranks(context), seed=0)
    feed = TrainFeed(data, context, batch_size=BATCH, augment=(), seed=0)
    steps = [
        transforms.Resize(SIDE),
        transforms.CenterCrop(SIDE),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    theirs = DataLoader(
        ImageFolder(str(root / "photos" / "train"), transforms.Compose(steps)),
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=processes,
        persistent_workers=processes > 0,
    )
    pairs = [(rate(feed.batches(index, 0), number), rate(theirs, number)) for index in range(rounds + 1)]
    ours, baseline = zip(*pairs[1:], strict=True)
    return statistics.median(ours), statistics.median(baseline)


def main() -> None:
    """Measure and print."""
    given = argparse.ArgumentParser()
    given.add_argument("--images", type=int, default=512)
    given.add_argument("--processes", type=int, default=2)
    given.add_argument("--rounds", type=int, default=5)
    options = given.parse_args()
    torch.set_num_threads(1)
    number = options.images // BATCH * BATCH
    rows: list[tuple[object, ...]] = []
    for name, file_size in FILE_SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), number, file_size)
            ours, baseline = compared(Path(folder), number, options.processes, options.rounds)
            rows.append((name, ours, baseline, ours / baseline, 1.0, waited(Path(folder), options.processes)))
    header = ("files", "ours, images/s", "ImageFolder, images/s", "ratio", "target", "share of waiting, ResNet-18")
    table(f"Image folder, {options.processes} loader processes", header, rows)


if __name__ == "__main__":
    main()
