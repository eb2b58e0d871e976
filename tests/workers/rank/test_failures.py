"""What kind of failure an exception is, and so whether the job is tried again."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.workers.training.runs import run, spec_of
from xsam.services.jobs.states import FailureKind
from xsam.workers.rank.failures import classify
from xsam.workers.training.errors import CheckpointError

LARGE = {"weights": torch.zeros(100_000)}


@contextmanager
def _disk_full_after(num_bytes: int) -> Iterator[None]:
    """Have every file of this process end there, as on a disk without room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE])
def test_storage_that_is_full_or_gone__is_not_the_job_s_fault(number: int) -> None:
    assert classify(OSError(number, os.strerror(number), "/x"))[0] is FailureKind.INFRASTRUCTURE


def test_files_that_the_job_s_code_misses__are_the_job_s_fault() -> None:
    kind, message = classify(FileNotFoundError(errno.ENOENT, "No such file or directory", "labels.csv"))
    assert (kind, message[:17]) == (FailureKind.USER, "FileNotFoundError")


@pytest.mark.parametrize("save", [torch.save, save_file], ids=["torch", "safetensors"])
def test_save_of_the_job_s_own_code__that_finds_no_room_is_not_its_fault(save: Any, tmp_path: Path) -> None:
    message = r"inline_container|File too large"
    with _disk_full_after(4_000), pytest.raises(Exception, match=message) as caught:
        save(LARGE, tmp_path / "weights")
    assert classify(caught.value)[0] is FailureKind.INFRASTRUCTURE, caught.value


def test_checkpoint__that_finds_no_room_is_tried_again_and_leaves_no_weights_behind(tmp_path: Path) -> None:
    spec = spec_of(model={"name": "mlp", "hidden": [64]}, epochs=1, checkpoint={"every_epochs": 1})
    with _disk_full_after(4_000), pytest.raises(CheckpointError, match="can't be written") as caught:
        run(spec, tmp_path)
    assert classify(caught.value)[0] is FailureKind.INFRASTRUCTURE
    weights = tmp_path / "weights"
    assert not weights.exists() or not list(weights.iterdir())
