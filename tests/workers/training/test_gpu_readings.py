"""Readings of an `nvidia-smi` on the PATH: a script in its place, since a real one needs a GPU."""

from pathlib import Path

import pytest

from xsam.workers.training import gpu_readings
from xsam.workers.training.gpu_readings import GpuReading, of_devices, read_gpus

ANSWER = """\
0, GPU-aaaa-1, 97, 40960, 81559
1, GPU-bbbb-2, 0, 4, 81559
2, GPU-cccc-3, [N/A], 4, 81559
"""


def _answer(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    command = folder / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_readings__are_those_of_nvidia_smi_but_for_gpus_that_do_not_tell_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answer(tmp_path, monkeypatch, f"cat <<'END'\n{ANSWER}END")
    found = read_gpus()
    assert found == [
        GpuReading(0, "GPU-aaaa-1", 0.97, 40960 * 2**20, 81559 * 2**20),
        GpuReading(1, "GPU-bbbb-2", 0.0, 4 * 2**20, 81559 * 2**20),
    ]
    assert [one.index for one in of_devices(found, "1")] == [1]
    assert [one.index for one in of_devices(found, "GPU-aaaa")] == [0]
    assert [one.index for one in of_devices(found, "0, 1")] == [0, 1]
    assert of_devices(found, "") == []


@pytest.mark.parametrize("script", ["exit 9", "sleep 5", "echo no devices were found"])
def test_command_that_fails_hangs_or_talks__reads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(gpu_readings, "ANSWER_WITHIN_S", 0.2)
    _answer(tmp_path, monkeypatch, script)
    assert read_gpus() == []


def test_machine_without_it__reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_gpus() == []
