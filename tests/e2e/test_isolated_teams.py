"""Ranks as users of their teams: what a team can do to another one on the same node, without and with it."""

import json
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sqlalchemy import select

from tests.support.bundles import LIMITS, add
from tests.support.processes import descendants
from tests.support.reachable_python import reachable_python
from tests.support.served import Served, served, wait_until
from xsam.services.artifacts.store import JobFolder
from xsam.services.bundles import archive
from xsam.services.checks import service as checks
from xsam.services.jobs import service as jobs
from xsam.services.jobs import verbs
from xsam.services.jobs.models import Job, JobEvent
from xsam.services.jobs.states import JobState, is_terminal
from xsam.services.metrics.models import EpochMetric
from xsam.services.settings import AllowedCode
from xsam.services.specs.job import JobSpec
from xsam.services.stores.folder import FolderStore
from xsam.services.teams.numbers import number_of
from xsam.services.teams.roles import Actor

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="not available: only root can give processes to other users"),
]

more = pytest.mark.skipif("XSAM_TEST_ISOLATION" not in os.environ, reason="run by `make isolation-test`")
FIRST_USER_ID = 61_000
ATTACK = Path(__file__).parent / "attack"
EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
DEFECTS = {"task": {"target": "acme_defects.task:Defects"}, "optimizer": {"variant": "xsam"}}
ALLOWED = AllowedCode(takes_bundles=True)


class Teams:
    """Teams on one service and one node.

    Args:
        service: that runs.
        code_root: folder of the node in which their code is unpacked.
    """

    def __init__(self, service: Served, code_root: Path) -> None:
        self.service = service
        self.code_root = code_root
        self.artifacts = service.data_dir / "artifacts"

    def spec(self, team: str, folder: Path | None = None, **spec: Any) -> JobSpec:
        """Return a job, with a folder's code uploaded for the team."""
        if folder is not None:
            bundle = add(self.service.database, self.artifacts, archive.pack(folder, LIMITS), Actor("ann", team))
            spec["code"] = {"bundle": bundle}
        return JobSpec.model_validate(spec)

    def submit(self, team: str, folder: Path | None = None, **spec: Any) -> str:
        """Queue a job of a team and return its id."""
        given = self.spec(team, folder, **spec)
        with self.service.database.unit_of_work() as session:
            return jobs.submit(session, given, actor=Actor("ann", team), allowed=ALLOWED)[0].id

    def job(self, job_id: str) -> Job:
        """Return the job's row as it is now."""
        with self.service.database.read() as session:
            return session.get_one(Job, job_id)

    def finish(self, job_id: str) -> Job:
        """Return the row of a job that has succeeded."""
        wait_until(lambda: is_terminal(JobState(self.job(job_id).state)))
        job = self.job(job_id)
        assert job.state == JobState.SUCCEEDED, job.failure_message
        return job

    def reach_epoch(self, job_id: str, epoch: int) -> tuple[int, int]:
        """Wait until a running job has finished an epoch; return the processes of its rank 0 and of its runner."""
        wait_until(lambda: self.job(job_id).epochs_done >= epoch or is_terminal(JobState(self.job(job_id).state)))
        assert self.job(job_id).state == JobState.RUNNING, self.job(job_id).failure_message
        query = select(JobEvent.data).where(JobEvent.job_id == job_id, JobEvent.kind == "training")
        with self.service.database.read() as session:
            data = session.scalars(query.order_by(JobEvent.id.desc())).first()
        return data["rank_pid"], data["runner_pid"]

    def folder(self, job_id: str) -> JobFolder:
        """Return the job's folder."""
        return JobFolder(self.artifacts, job_id)

    def user_of(self, team: str) -> int:
        """Return as whom a team's ranks run."""
        return FIRST_USER_ID + number_of(self.service.database, team)

    def processes(self, title: str) -> list[int]:
        """Return the service's processes with such a title."""
        return [pid for pid, found in descendants(self.service.process.pid).items() if title in found]


@contextmanager
def teams(**settings: str) -> Iterator[Teams]:
    """Start a service whose files lie where other users get to, as an operator's do."""
    before = os.umask(0o077)  # as the service's own processes have it, whose part this test takes at times
    try:
        with tempfile.TemporaryDirectory(prefix="xsam-teams-", dir="/tmp") as folder:
            Path(folder).chmod(0o711)
            code_root = Path(folder) / "code"
            named = {"XSAM_CODE__NODE_DIR": str(code_root), "XSAM_DISPATCHER__WARM_PROCESSES": "1"}
            environment = {**os.environ, **named, **settings}
            try:
                python = reachable_python(Path(folder))
            except PermissionError as e:
                pytest.skip(f"not available: {e}")
            with served(
                Path(folder) / "data", "--num-cpus", "4", is_warmed=False, python=python, environment=environment
            ) as service:
                yield Teams(service, code_root)
    finally:
        os.umask(before)


@pytest.fixture(scope="module")
def isolated() -> Iterator[Teams]:
    with teams(XSAM_ISOLATION__FIRST_USER_ID=str(FIRST_USER_ID)) as running:
        yield running


def kept_manifest(folder: JobFolder) -> Path:
    """Return a checkpoint's manifest that stays, while checkpoints come and go."""
    kept = folder.checkpoints / "kept"
    while not kept.exists():
        with suppress(FileNotFoundError):
            os.link(max(folder.checkpoints.glob("step-*")) / "manifest.json", kept)
    return kept


def attacked(running: Teams) -> dict[str, bool]:
    """Have the blue team train and the red one attack it; return what succeeded."""
    victim = running.submit("blue", EXAMPLES / "defects", **DEFECTS, epochs=100_000, checkpoint={"every_steps": 7})
    rank, runner = running.reach_epoch(victim, 2)
    folder = running.folder(victim)
    (code,) = running.code_root.rglob("acme_defects/task.py")
    (output,) = Path("/tmp/ray/session_latest/logs").resolve().glob(f"worker-*-{rank}.out")
    (packed,) = (path for path in (running.artifacts / "bundles").rglob("*") if path.is_file())
    told = {
        "files": {
            "a manifest": kept_manifest(folder),
            "weights": folder.path / "weights" / "last.safetensors",
            "its log": folder.logs(1) / "rank-0.log",
            "what Ray keeps of its output": output,
            "unpacked code": code,
            "packed code": packed,
            "the database": running.service.data_dir / "xsam.db",
            "the log of the API": running.service.data_dir / "logs" / "api.log",
        },
        "folders": {
            "its checkpoints": folder.checkpoints,
            "its weights": folder.path / "weights",
            "its folder": folder.path,
            "the folder of all jobs": folder.path.parent,
            "the service's folder": running.service.data_dir,
            "its code": code.parent,
        },
        "processes": {
            "rank": rank,
            "runner": runner,
            "dispatcher": running.processes("xsam.workers")[0],
        },
    }
    config = json.loads(json.dumps(told, default=str))
    attacker = running.submit("red", ATTACK, entrypoint="attack.py", config=config, epochs=1)
    running.finish(attacker)
    outcome: dict[str, bool] = json.loads((running.folder(attacker).checkpoints / "outcome.json").read_text())
    if outcome["kill its rank"]:
        wait_until(lambda: running.job(victim).attempt > 1)
    else:
        os.kill(rank, 0)
    with running.service.database.unit_of_work() as session:
        verbs.cancel(session, victim, actor=Actor("ann", "blue"))
    wait_until(lambda: running.job(victim).state == JobState.CANCELLED)
    outcome["have its run end"] = running.job(victim).attempt > 1
    return outcome


@more
def test_attack__succeeds_in_all_without_users_of_teams() -> None:
    with teams() as running:
        outcome = attacked(running)
    assert [name for name, has_succeeded in outcome.items() if not has_succeeded] == []


def test_attack__succeeds_in_nothing_with_them(isolated: Teams) -> None:
    outcome = attacked(isolated)
    assert [name for name, has_succeeded in outcome.items() if has_succeeded] == []
    assert len(outcome) > 25


def test_own_task__is_its_teams_and_resumes_bit_equal_after_a_kill(isolated: Teams) -> None:
    spec = {**DEFECTS, "epochs": 12, "resources": {"num_workers": 2}}
    whole = isolated.submit("blue", EXAMPLES / "defects", **spec)
    isolated.finish(whole)
    killed = isolated.submit("blue", EXAMPLES / "defects", **spec, checkpoint={"every_steps": 7})
    rank, _ = isolated.reach_epoch(killed, 2)
    assert Path(f"/proc/{rank}").stat().st_uid == isolated.user_of("blue")
    os.kill(rank, signal.SIGKILL)
    assert isolated.finish(killed).attempt == 2
    weights = [load_file(isolated.folder(job).path / "weights" / "last.safetensors") for job in (whole, killed)]
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name
    with isolated.service.database.read() as session:
        epochs = session.scalars(select(EpochMetric.epoch).where(EpochMetric.job_id == killed)).all()
    assert sorted(epochs) == list(range(1, 13)), "no epoch twice"
    for path in isolated.folder(killed).checkpoints.rglob("*"):
        assert path.stat().st_uid == isolated.user_of("blue")
        assert not path.stat().st_mode & 0o007, path
        assert path.stat().st_mode & 0o060 == 0o060, path
    wait_until(lambda: not isolated.processes("ray::RankWorker.run"))
    FolderStore(isolated.artifacts).set_aside(f"jobs/{killed}")
    assert not isolated.folder(killed).path.exists()


@more
def test_built_in_job_and_script_on_two_ranks__run_as_their_teams(isolated: Teams) -> None:
    built_in = isolated.submit("red", epochs=2, resources={"num_workers": 2})
    script = isolated.submit(
        "red",
        EXAMPLES / "own_loop",
        entrypoint="train.py",
        config={"epochs": 4},
        epochs=4,
        best="accuracy:max",
        resources={"num_workers": 2},
    )
    for job_id in (built_in, script):
        isolated.finish(job_id)
        assert isolated.folder(job_id).checkpoints.stat().st_uid == isolated.user_of("red")
        assert isolated.folder(job_id).path.stat().st_uid == 0


@more
def test_check_of_code__runs_as_the_team(isolated: Teams) -> None:
    given = isolated.spec("green", EXAMPLES / "defects", **DEFECTS, epochs=1)
    with isolated.service.database.unit_of_work() as session:
        check_id = checks.submit(session, given, actor=Actor("ann", "green"), allowed=ALLOWED).id

    def answer() -> dict[str, Any] | None:
        with isolated.service.database.read() as session:
            return checks.get(session, check_id).answer

    wait_until(lambda: answer() is not None)
    assert (answer() or {})["error"] is None
    own = isolated.code_root / f"user-{isolated.user_of('green')}"
    assert (own / "home" / "tmp").stat().st_uid == isolated.user_of("green")
