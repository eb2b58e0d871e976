"""A job in this process, without the service."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def xsam(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, "-m", "xsam.api", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_check_and_run__of_an_example_need_no_service(tmp_path: Path) -> None:
    job = str(ROOT / "deploy" / "examples" / "prices" / "job.yaml")
    checked = xsam(tmp_path, "check", "--local", job, "-o", "json")
    assert checked.returncode == 0, checked.stderr
    answer = json.loads(checked.stdout)
    assert (answer["steps_per_epoch"], answer["batch"]) == (12, "(float32[32, 8], float32[32])")
    assert answer["metrics"] == ["loss", "mse"]
    ran = xsam(tmp_path, "run", "--local", job, "--set", "epochs=3")
    assert ran.returncode == 0, ran.stderr
    assert "epoch 3/3  train loss" in ran.stderr
    assert (tmp_path / "xsam-run" / "weights" / "best.safetensors").is_file()
    broken = xsam(tmp_path, "check", "--local", job, "--set", "task.target=prices:tusk")
    assert broken.returncode == 1
    assert "has no 'tusk'; did you mean 'task'?" in broken.stderr
