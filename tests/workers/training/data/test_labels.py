import pytest
import torch

from xsam.workers.training.data.labels import balanced_subset, with_label_noise

LABELS = torch.arange(1000) % 10


@pytest.mark.parametrize("size", [1, 10, 37, 100, 999, 1000])
def test_balanced_subset__class_counts_differ_by_one_at_most(size: int) -> None:
    indices = balanced_subset(LABELS, size, seed=5)
    assert len(indices.unique()) == size
    counts = torch.bincount(LABELS[indices], minlength=10)
    assert counts.max() - counts.min() <= 1


def test_balanced_subset__fills_up_from_other_classes_where_one_has_too_few() -> None:
    labels = torch.tensor([0] * 3 + [1] * 50 + [2] * 50)
    counts = torch.bincount(labels[balanced_subset(labels, 43, seed=0)])
    assert counts.tolist() == [3, 20, 20]


def test_balanced_subset__is_fixed_by_the_seed() -> None:
    assert torch.equal(balanced_subset(LABELS, 50, seed=1), balanced_subset(LABELS, 50, seed=1))
    assert not torch.equal(balanced_subset(LABELS, 50, seed=1), balanced_subset(LABELS, 50, seed=2))


def test_label_noise__redraws_the_share_over_all_classes() -> None:
    labels = torch.zeros(10_000, dtype=torch.int64)
    noisy = with_label_noise(labels, 0.4, num_classes=10, seed=0)
    counts = torch.bincount(noisy, minlength=10)
    # 4,000 are redrawn over ten classes, the true one included: 400 each, standard deviation 19.
    assert abs(int(counts[0]) - 6400) < 100
    assert all(abs(int(count) - 400) < 100 for count in counts[1:])
    assert torch.equal(labels, torch.zeros(10_000, dtype=torch.int64))


def test_label_noise__is_fixed_by_the_seed() -> None:
    assert torch.equal(with_label_noise(LABELS, 0.4, 10, 1), with_label_noise(LABELS, 0.4, 10, 1))
    assert not torch.equal(with_label_noise(LABELS, 0.4, 10, 1), with_label_noise(LABELS, 0.4, 10, 2))


def test_label_noise__of_zero_changes_nothing() -> None:
    assert torch.equal(with_label_noise(LABELS, 0.0, 10, 0), LABELS)
