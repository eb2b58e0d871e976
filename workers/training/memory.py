"""Gives memory that ran out one name, wherever it ran out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from xsam.workers.training.errors import OutOfMemoryError

_CPU_ALLOCATOR = "can't allocate memory"
"""The CPU allocator raises a plain RuntimeError with these words in it."""


@contextmanager
def named_memory_errors(describe: Callable[[], str]) -> Iterator[None]:
    """Turn every kind of exhausted memory into OutOfMemoryError.

    Args:
        describe: says where the run was and what could be made smaller; called only after a failure.

    Raises:
        OutOfMemoryError: the memory of the device or of the machine is full.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as e:
        raise OutOfMemoryError(f"{describe()} ({_first_line(e)})") from e
    except RuntimeError as e:
        if _CPU_ALLOCATOR not in str(e):
            raise
        raise OutOfMemoryError(f"{describe()} ({_first_line(e)})") from e


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
