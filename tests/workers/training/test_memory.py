import pytest
import torch

from xsam.workers.training.errors import OutOfMemoryError
from xsam.workers.training.memory import named_memory_errors


@pytest.mark.parametrize(
    ("cause", "shown"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee documentation"),
            "Tried to allocate 2",
        ),
        (MemoryError(), "MemoryError"),
        (RuntimeError("[enforce fail at alloc.cpp] DefaultCPUAllocator: can't allocate memory: you tried"), "enforce"),
    ],
)
def test_exhausted_memory__gets_one_name_and_one_line(cause: Exception, shown: str) -> None:
    with pytest.raises(OutOfMemoryError) as caught, named_memory_errors(lambda: "out of memory in epoch 1"):
        raise cause
    assert str(caught.value).startswith("out of memory in epoch 1 (")
    assert shown in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is cause


def test_other_errors__come_out_as_they_are() -> None:
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError) as caught, named_memory_errors(lambda: "unused"):
        raise error
    assert caught.value is error
