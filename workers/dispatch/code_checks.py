"""The dispatcher's part in checks of jobs' own code: each in a process of its own, within a time limit."""

import logging
import time
from typing import Any

import ray
from ray.exceptions import RayError

from xsam.services.bundles.service import file_of
from xsam.services.checks import service as checks
from xsam.services.db.session import Database
from xsam.services.requirements import service as requirements
from xsam.services.settings import Settings
from xsam.services.specs.job import JobSpec
from xsam.services.teams.numbers import number_of
from xsam.workers.actors import check_code
from xsam.workers.dispatch.warm_pool import WarmPool
from xsam.workers.environments.store import EnvironmentStore
from xsam.workers.messages import CheckRequest, sentence

log = logging.getLogger(__name__)

MAX_RUNNING = 2
LOOK_INTERVAL_S = 0.3


class CodeChecks:
    """Runs checks for the leading dispatcher. Used from its thread.

    Args:
        settings: of the service.
        database: where checks wait.
        ranks: in which the jobs that are checked will run.
    """

    def __init__(self, settings: Settings, database: Database, ranks: WarmPool) -> None:
        self._ranks = ranks
        self._settings = settings
        self._database = database
        self._running: dict[ray.ObjectRef, tuple[str, float, float]] = {}
        self._look_at = 0.0
        self._has_looked = False

    def turn(self) -> None:
        """Store answers, end what takes too long, start what waits; never waits itself."""
        self._collect()
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_INTERVAL_S
        if not self._has_looked:
            self._has_looked = True
            with self._database.unit_of_work() as session:
                checks.take_back(session)
        with self._database.read() as session:
            due = checks.due(session, limit=MAX_RUNNING - len(self._running))
        for check_id, spec in due:
            with self._database.unit_of_work() as session:
                is_taken = checks.take(session, check_id)
            if is_taken:
                self._ranks.expect_unused(spec.resources.num_workers)  # ready by when the job is placed
                within_s = self._within_s(spec)
                deadline = time.monotonic() + within_s
                self._running[check_code.remote(self._request(check_id, spec))] = (check_id, deadline, within_s)

    def forget_old(self) -> None:
        """Delete old checks."""
        with self._database.unit_of_work() as session:
            checks.forget_old(session)

    def _request(self, check_id: str, spec: JobSpec) -> CheckRequest:
        settings = self._settings
        lock: str | None = None
        if spec.requirements is not None:
            with self._database.read() as session:
                lock = requirements.lock_of(session, spec.requirements.lock)
        return CheckRequest(
            spec=spec,
            dataset_root=settings.dataset_root,
            model_root=settings.model_root,
            place=settings.store_place,
            code_file=None if spec.code is None else file_of(spec.code.bundle),
            code_root=settings.code_root,
            allowed_packages=settings.training.allowed_packages,
            lock=lock,
            environments=environment_store(settings),
            team_user=self._team_user(check_id),
        )

    def _team_user(self, check_id: str) -> int | None:
        first = self._settings.isolation.first_user_id
        if first is None:
            return None
        with self._database.read() as session:
            team = checks.team_of(session, check_id)
        return None if team is None else first + number_of(self._database, team)

    def _within_s(self, spec: JobSpec) -> float:
        """Return how long a check may take; the first one of some packages installs them."""
        code = self._settings.code
        return code.check_within_s + (0.0 if spec.requirements is None else code.install_within_s)

    def _collect(self) -> None:
        if not self._running:
            return
        done, pending = ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        for ref in done:
            check_id, _, _ = self._running.pop(ref)
            self._store(check_id, _answer_of(ref))
        for ref in pending:
            check_id, deadline, within_s = self._running[ref]
            if time.monotonic() < deadline:
                continue
            del self._running[ref]
            ray.cancel(ref, force=True)
            self._store(check_id, {"error": f"it did not import, build and take one step within {within_s:g} s"})

    def _store(self, check_id: str, answer: dict[str, Any]) -> None:
        with self._database.unit_of_work() as session:
            checks.answer(session, check_id, answer)


def environment_store(settings: Settings) -> EnvironmentStore:
    """Return where nodes keep the packages that jobs bring."""
    code = settings.code
    return EnvironmentStore(settings.environment_root, code.index, code.max_environment_bytes)


def _answer_of(ref: ray.ObjectRef) -> dict[str, Any]:
    try:
        return dict(ray.get(ref))
    except RayError as e:
        return {"error": f"its process ended before it could answer: {sentence(e)}"}
