import torch

from xsam.workers.training.data.augment import Augmentation

ALL = ("crop", "flip", "cutout")


def numbered_images(number: int, side: int = 8, channels: int = 2) -> torch.Tensor:
    """Images without a zero, each pixel its own value within an image."""
    pixels = torch.arange(1, channels * side * side + 1, dtype=torch.uint8).view(channels, side, side)
    return pixels.repeat(number, 1, 1, 1)


def test_draws__are_fixed_by_seed_and_epoch() -> None:
    draws = Augmentation(ALL, seed=3).draws(epoch=2, num_examples=50)
    assert draws is not None
    assert torch.equal(draws, Augmentation(ALL, seed=3).draws(2, 50))
    assert not torch.equal(draws, Augmentation(ALL, seed=3).draws(3, 50))
    assert not torch.equal(draws, Augmentation(ALL, seed=4).draws(2, 50))


def test_draws__are_none_without_augmentation() -> None:
    assert Augmentation((), seed=0).draws(0, 10) is None


def test_move__does_not_depend_on_the_batch_an_example_is_in() -> None:
    augmentation = Augmentation(ALL, seed=0)
    images = torch.randint(256, (12, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    draws = augmentation.draws(0, 12)
    assert draws is not None
    whole = augmentation.move(images, draws)
    for example in range(12):
        alone = augmentation.move(images[example : example + 1], draws[example : example + 1])
        assert torch.equal(alone[0], whole[example])


def test_crop__is_a_window_of_the_image_padded_with_black() -> None:
    augmentation = Augmentation(("crop",), seed=1)
    images = numbered_images(200)
    draws = augmentation.draws(0, 200)
    assert draws is not None
    moved = augmentation.move(images, draws)
    padded = torch.nn.functional.pad(images[0], (1, 1, 1, 1))
    windows = [padded[:, y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
    counts = [sum(torch.equal(image, window) for image in moved) for window in windows]
    assert sum(counts) == 200
    assert min(counts) > 0


def test_flip__mirrors_about_half_of_the_images_left_to_right() -> None:
    augmentation = Augmentation(("flip",), seed=1)
    images = numbered_images(200)
    draws = augmentation.draws(0, 200)
    assert draws is not None
    moved = augmentation.move(images, draws)
    flipped = sum(torch.equal(image, images[0].flip(-1)) for image in moved)
    kept = sum(torch.equal(image, images[0]) for image in moved)
    assert flipped + kept == 200
    assert 70 < flipped < 130


def test_cutout__blanks_one_square_of_half_the_side_clipped_at_the_edge() -> None:
    augmentation = Augmentation(("cutout",), seed=1)
    images = torch.ones(300, 2, 8, 8)
    draws = augmentation.draws(0, 300)
    assert draws is not None
    cut = augmentation.cut_out(images, draws) == 0
    assert torch.equal(cut[:, 0], cut[:, 1])
    rows, columns = cut[:, 0].any(2).sum(1), cut[:, 0].any(1).sum(1)
    assert torch.equal(cut[:, 0].sum((1, 2)), rows * columns)
    assert (int(rows.min()), int(rows.max())) == (2, 4)


def test_move_and_cut_out__leave_what_is_not_asked_for() -> None:
    images = numbered_images(5)
    draws = torch.rand(5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Augmentation(("cutout",), 0).move(images, draws), images)
    assert torch.equal(Augmentation(("crop", "flip"), 0).cut_out(images.float(), draws), images.float())


def test_names__apply_in_one_order_however_they_are_listed() -> None:
    images = numbered_images(20)
    draws = torch.rand(20, 5, generator=torch.Generator().manual_seed(0))
    forward, backward = Augmentation(("crop", "flip"), 0), Augmentation(("flip", "crop"), 0)
    assert torch.equal(forward.move(images, draws), backward.move(images, draws))
