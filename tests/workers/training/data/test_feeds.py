from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.workers.training.runs import context_in
from xsam.workers.training.data.feeds import Data, EvalFeed, LoadedImages, Normalisation, Split, TensorImages, TrainFeed
from xsam.workers.training.errors import DatasetFormatError
from xsam.workers.training.random_state import epoch_order

IMAGES = torch.randint(256, (50, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
# A label that tells the example.
LABELS = torch.arange(50)


class Items:
    """A map-style dataset over the same images; must be importable by loader processes."""

    def __init__(self, broken: int | None = None) -> None:
        self._broken = broken

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index == self._broken:
            raise OSError("image file is truncated")
        return IMAGES[index], int(LABELS[index])

    def __len__(self) -> int:
        return len(LABELS)


def data_of(images: TensorImages | LoadedImages) -> Data:
    split = Split(images, LABELS)
    return Data(split, split, 4, 1, 50, Normalisation(255.0, (0.5,), (0.25,)))


def feed_of(data: Data, rank: int = 0, world_size: int = 1, num_threads: int = 1, **options: object) -> TrainFeed:
    context = context_in(Path("unused"), rank, world_size, num_threads=num_threads)
    return TrainFeed(data, context, **{"batch_size": 12, "augment": (), "seed": 7, **options})


def test_train_feed__walks_the_epochs_permutation_in_whole_batches() -> None:
    feed = feed_of(data_of(TensorImages(IMAGES)))
    labels = torch.cat([labels for _, labels in feed.batches(epoch=3, first_step=0)])
    assert feed.steps_per_epoch == 4
    assert torch.equal(labels, epoch_order(50, seed=7, epoch=3)[:48])


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_train_feed__ranks_share_each_steps_batch(world_size: int) -> None:
    data = data_of(TensorImages(IMAGES))
    options = {"augment": ("crop", "flip", "cutout")}
    whole = list(feed_of(data, **options).batches(0, 0))
    parts = [list(feed_of(data, rank, world_size, **options).batches(0, 0)) for rank in range(world_size)]
    for step, (images, labels) in enumerate(whole):
        assert torch.equal(torch.cat([part[step][1] for part in parts]), labels)
        assert torch.equal(torch.cat([part[step][0] for part in parts]), images)


def test_train_feed__goes_on_in_the_middle_of_an_epoch() -> None:
    feed = feed_of(data_of(TensorImages(IMAGES)), augment=("crop", "cutout"))
    whole = list(feed.batches(1, 0))[2:]
    rest = list(feed.batches(1, 2))
    assert len(rest) == len(whole) == 2
    for (images, labels), (expected_images, expected_labels) in zip(rest, whole, strict=True):
        assert torch.equal(images, expected_images)
        assert torch.equal(labels, expected_labels)


def test_train_feed__normalises_raw_pixels() -> None:
    feed = feed_of(data_of(TensorImages(IMAGES)))
    images, labels = next(iter(feed.batches(0, 0)))
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, (IMAGES[labels] / 255 - 0.5) / 0.25)


@pytest.mark.parametrize("num_threads", [1, 3])
def test_train_feed__loader_gives_what_memory_gives_with_and_without_processes(num_threads: int) -> None:
    subset = torch.arange(0, 50, 2)
    options = {"batch_size": 6, "augment": ("crop", "flip", "cutout"), "num_threads": num_threads}
    loaded = data_of(LoadedImages(Items(), torch.arange(50)))
    in_memory = data_of(TensorImages(IMAGES))
    loaded, in_memory = (replace(data, train=data.train.subset(subset)) for data in (loaded, in_memory))
    feed = feed_of(loaded, **options)
    for epoch in range(2):
        batches = list(feed.batches(epoch, 1))
        expected = list(feed_of(in_memory, **options).batches(epoch, 1))
        assert len(batches) == len(expected) == 3
        for (images, labels), (expected_images, expected_labels) in zip(batches, expected, strict=True):
            assert torch.equal(images, expected_images)
            assert torch.equal(labels, expected_labels)


def test_train_feed__loader_leaves_the_global_random_state_alone() -> None:
    feed = feed_of(data_of(LoadedImages(Items(), torch.arange(50))))
    before = torch.get_rng_state()
    list(feed.batches(0, 0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("num_threads", [1, 2])
def test_train_feed__unreadable_item_is_named(num_threads: int) -> None:
    feed = feed_of(data_of(LoadedImages(Items(broken=17), torch.arange(50))), num_threads=num_threads)
    with pytest.raises(DatasetFormatError, match=r"example 17 can't be read: image file is truncated"):
        list(feed.batches(0, 0))


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_eval_feed__every_example_once_and_equally_many_batches(world_size: int) -> None:
    data = replace(data_of(TensorImages(IMAGES)), image_size=256)
    feeds = [
        EvalFeed(data, data.evaluation, context_in(Path("unused"), rank, world_size), batch_size=21)
        for rank in range(world_size)
    ]
    batches = [list(feed.batches()) for feed in feeds]
    assert torch.cat(
        [batch[1] for part in batches for batch in part if batch is not None]
    ).sort().values.tolist() == list(range(50))
    assert len({len(part) for part in batches}) == 1
