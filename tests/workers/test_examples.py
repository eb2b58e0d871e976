"""Each example, run as somebody who reads about it would; their studies run in `studies/test_examples_studied.py`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from xsam.services.studies.arms import arms_of, job_spec
from xsam.services.studies.space import point_at
from xsam.services.studies.spec import StudySpec

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
JOBS = sorted(path for path in EXAMPLES.glob("*/*.yaml") if path.name != "study.yaml")
STUDIES = sorted(EXAMPLES.glob("*/study.yaml"))
SAID = {"defects": "macro_f1", "prices": "mse", "texts": "accuracy", "own_loop": "accuracy"}
BUNDLE = {"bundle": "sha256:" + 64 * "0"}


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("job", JOBS, ids=name_of)
def test_example__trains_by_hand(job: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "xsam.api", "run", "--local", str(job), "--set", "epochs=1"]
    if "config" in yaml.safe_load(job.read_text()):
        command += ["--set", "config.epochs=1"]
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    (epoch,) = (line for line in ran.stderr.splitlines() if line.startswith("epoch 1/1 "))
    assert SAID[job.parent.name] in epoch
    assert any(path.is_file() for path in (tmp_path / "xsam-run").rglob("*"))


@pytest.mark.parametrize("study", STUDIES, ids=name_of)
def test_study_of_an_example__makes_jobs(study: Path) -> None:
    document = yaml.safe_load(study.read_text())
    document["base"]["code"] = BUNDLE
    spec = StudySpec.model_validate(document)
    job = job_spec(spec, arms_of(spec)[0], point_at(spec.space, [0.5] * len(spec.space)), seed=3)
    assert job.best == f"{SAID[study.parent.name]}:{spec.objective.mode}"
    assert job.code is not None


def test_examples__all_have_a_job_and_a_study() -> None:
    folders = {path for path in EXAMPLES.iterdir() if path.is_dir()}
    assert {path.parent for path in JOBS} == {path.parent for path in STUDIES} == folders
