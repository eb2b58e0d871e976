"""What a rank says of its GPUs, with a script in the place of `nvidia-smi`."""

from pathlib import Path
from queue import SimpleQueue

import pytest

from xsam.workers.messages import GpuUse
from xsam.workers.rank import gpu_use
from xsam.workers.rank.gpu_use import measured


def test_use__is_of_the_ranks_own_gpus_and_ends_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_use, "FIRST_AFTER_S", 0.05)
    monkeypatch.setattr(gpu_use, "INTERVAL_S", 0.05)
    command = tmp_path / "nvidia-smi"
    lines = "0, GPU-a, 100, 1000, 2000\n1, GPU-b, 50, 10, 2000\n2, GPU-c, 0, 30, 2000\n"
    command.write_text(f"#!/bin/sh\ncat <<'END'\n{lines}END\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    heard: SimpleQueue[GpuUse] = SimpleQueue()
    with measured(3, "1,2", heard.put):
        mib = {"used_bytes": 40 * 2**20, "total_bytes": 4000 * 2**20}
        assert heard.get(timeout=20) == GpuUse(rank=3, utilization=0.25, busiest=0.5, **mib)
        assert heard.get(timeout=20).utilization == 0.25


def test_run_without_gpus__is_not_measured() -> None:
    def read() -> list[object]:
        raise AssertionError("nobody is asked")

    with measured(0, "", lambda use: None, read=read):  # type: ignore[arg-type]
        pass
