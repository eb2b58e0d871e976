"""What is secret is where it has to be and nowhere else.

The database's address, which may hold a password, and the key of secrets are known to dispatcher and runners alone; a
team's secret is known to its jobs' ranks while they run.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tests.support import bundles
from tests.support.callers import SECRET_KEY, make_secret, make_team
from tests.support.live_service import LiveService
from tests.support.processes import descendants
from tests.workers.conftest import SECRET, Clusters
from xsam.services.artifacts.store import JobFolder
from xsam.services.jobs import service as jobs
from xsam.services.jobs.models import JobEvent
from xsam.services.jobs.states import JobState
from xsam.services.settings import AllowedCode
from xsam.services.specs.job import JobSpec
from xsam.services.teams.roles import Actor

pytestmark = pytest.mark.ray

VALUE = "wandb-0123456789-live"
TASK = """
import logging, os, sys
import torch
from torch.utils.data import TensorDataset


class Printing:
    def model(self):
        key = os.environ["WANDB_API_KEY"]
        print(f"the key has {len(key)} characters:", key)
        print("in stderr:", key, file=sys.stderr)
        logging.getLogger("acme").info("logged: %s", key)
        return torch.nn.Linear(2, 1)

    def train_data(self):
        return TensorDataset(torch.randn(128, 2), torch.zeros(128, 1))

    def eval_data(self):
        return self.train_data()

    def loss(self, model, batch):
        inputs, targets = batch
        return (model(inputs) - targets).square().mean()
"""
SCRIPT = """
import os

raise RuntimeError("no access with " + os.environ["WANDB_API_KEY"])
"""


def test_database_url__reaches_no_process_of_ray_by_environment_or_command_and_no_file(
    live: LiveService, clusters: Clusters
) -> None:
    job_id = live.submit(epochs=1, resources={"num_workers": 2})
    assert live.finish(job_id).state == JobState.SUCCEEDED
    below = descendants(os.getpid())
    assert {"ray::RankWorker", "ray::JobRunner"} <= {title.split(".")[0] for title in below.values()}
    for pid, title in below.items():
        for secret in (SECRET, SECRET_KEY):
            assert secret not in title
            assert secret.encode() not in _environment(pid), title
    assert _files_with(live, clusters, SECRET, SECRET_KEY) == []


@pytest.fixture(scope="module")
def value(live: LiveService) -> str:
    """A secret of the team red, which jobs can name."""
    make_team(live.database, "red")
    make_secret(live.database, "red", value=VALUE)
    return VALUE


def _submit(live: LiveService, **spec: Any) -> str:
    """Queue a job of ann's whose own code has the secret."""
    ann, packed = Actor("ann", "red"), bundles.packed({"acme.py": TASK, "train.py": SCRIPT})
    bundle = bundles.add(live.database, live.settings.artifact_root, packed, ann)
    given = {"code": {"bundle": bundle}, "epochs": 1, **spec}
    with live.database.unit_of_work() as session:
        spec_of = JobSpec.model_validate({"secrets": ["WANDB_API_KEY"], **given})
        return jobs.submit(session, spec_of, actor=ann, allowed=AllowedCode(takes_bundles=True))[0].id


def test_secret_of_a_team__reaches_each_rank_and_no_row_file_log_or_event(
    live: LiveService, clusters: Clusters, value: str
) -> None:
    job_id = _submit(live, task={"target": "acme:Printing"}, resources={"num_workers": 2})
    job = live.finish(job_id)
    assert job.state == JobState.SUCCEEDED, job.failure_message
    for rank in (0, 1):
        log = (JobFolder(live.settings.artifact_root, job_id).logs(1) / f"rank-{rank}.log").read_text()
        assert f"the key has {len(value)} characters: ***" in log
        assert "in stderr: ***" in log
        assert "INFO acme: logged: ***" in log
    failed = live.finish(_submit(live, entrypoint="train.py"))
    assert (failed.state, failed.failure_message) == (JobState.FAILED, "RuntimeError: no access with ***")
    (attempt,) = live.attempts(failed.id)
    assert "no access with ***" in str(attempt.traceback)
    with live.database.read() as session:
        events = [(one.message, one.data) for one in session.scalars(select(JobEvent))]
    assert value not in repr(events)
    assert "no access with ***" in repr(events)
    assert _files_with(live, clusters, value) == []


def _files_with(live: LiveService, clusters: Clusters, *secrets: str) -> list[Path]:
    """Return the files that hold one of these: the database's, artifacts, what Ray writes and logs."""
    files = [path for path in clusters.ray_folder.rglob("*") if path.is_file() and not path.is_symlink()]
    database = Path(live.settings.database_url.removeprefix("sqlite:///"))
    for folder in (live.settings.artifact_root, live.settings.log_folder, database.parent):
        files += [path for path in folder.rglob("*") if path.is_file()]
    assert {"raylet.out", "rank-0.log", "xsam.db"} <= {path.name for path in files}
    return [path for path in files if any(one.encode() in path.read_bytes() for one in secrets)]


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""  # it has ended
