"""What a rank makes of a job's own code, in this process and without a runner: a rank other than the first has none."""

import os
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from tests.support import bundles
from xsam.services.bundles.service import file_of
from xsam.services.jobs.states import FailureKind
from xsam.services.specs.job import JobSpec
from xsam.services.stores.store import StorePlace
from xsam.workers.messages import Assignment, RankContext
from xsam.workers.rank.run import run_rank

VALUE = "wandb-0123456789"
SCRIPT = """
import os
key = os.environ["WANDB_API_KEY"]
print(f"the key has {len(key)} characters: {key}")
raise RuntimeError(f"no access with {key}")
"""


@pytest.fixture(autouse=True)
def _process_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script's process is not used again; this one is."""
    monkeypatch.chdir(Path.cwd())
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("XSAM_JOB_ID", "")
    monkeypatch.setattr(torch, "set_num_threads", lambda num: None)


def test_script__has_its_secret_and_what_is_told_of_it_has_none(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place, packed = StorePlace(tmp_path / "artifacts"), bundles.packed({"train.py": SCRIPT})
    place.open().put_bytes(file_of(packed.id), packed.packed)
    given = {"code": {"bundle": packed.id}, "entrypoint": "train.py", "secrets": ["WANDB_API_KEY"]}
    assignment = Assignment(
        "job",
        1,
        JobSpec.model_validate(given),
        RankContext(1, 2, "cpu", None, tmp_path / "checkpoints"),
        tmp_path / "logs",
        place=place,
        code_file=file_of(packed.id),
        code_root=tmp_path / "code",
        secrets={"WANDB_API_KEY": VALUE},
    )
    result = run_rank(assignment, cast(Any, None))
    assert (result.failure_kind, result.message) == (FailureKind.USER, "RuntimeError: no access with ***")
    log = (tmp_path / "logs" / "rank-1.log").read_text()
    assert f"the key has {len(VALUE)} characters: ***" in log
    assert "RuntimeError: no access with ***" in log
    assert VALUE not in repr(result) + log + "".join(capfd.readouterr())
    assert "WANDB_API_KEY" not in os.environ
