"""The dispatcher's part in studies: starts runners, finds the one that takes a trial, cleans up after lost ones."""

import logging
import time
from collections.abc import Sequence

import ray
from ray.actor import ActorHandle

from xsam.services.db.session import Database
from xsam.services.jobs import queue, stalled
from xsam.services.jobs.queue import ClaimedJob
from xsam.services.studies import trials
from xsam.workers.actors import StudyRunnerActor
from xsam.workers.dispatch.warm_pool import WarmPool
from xsam.workers.messages import RunnerConfig

log = logging.getLogger(__name__)

REST_S = 60.0
"""After a study has begun, until a spare runner is started for a next one: that takes four seconds of a processor."""


class StudyRunners:
    """Runners of studies, one warm and the busy ones. Used from the dispatcher's thread.

    Args:
        config: what runners need of the settings.
        database: the dispatcher's.
        owner: the dispatcher's name.
        node_id: where runners live; they hold no resources.
    """

    def __init__(self, config: RunnerConfig, database: Database, *, owner: str, node_id: str) -> None:
        self._config = config
        self._database = database
        self._owner = owner
        self.node_id = node_id
        self._pool = WarmPool(StudyRunnerActor, "study", size=1)
        self._rest_until = 0.0

    def refill(self) -> None:
        """Keep a runner ready, but leave the processors to a study that has just begun; never waits."""
        if time.monotonic() >= self._rest_until:
            self._pool.refill([self.node_id])

    def start(self, study_ids: Sequence[str]) -> list[tuple[ray.ObjectRef, ClaimedJob, ActorHandle]]:
        """Start studies that wait, as far as runners are ready."""
        started = []
        for study_id in study_ids:
            runner = self._pool.take_answering(self.node_id)
            if runner is None:
                self._rest_until = 0.0
                break
            self._rest_until = time.monotonic() + REST_S
            with self._database.unit_of_work() as session:
                claimed = queue.claim(session, study_id, runner=self._owner, lease_s=self._config.lease_s)
            if claimed is None:
                self._pool.give_back(self.node_id, runner)
                continue
            started.append((runner.run.remote(self._config, claimed), claimed, runner))
        return started

    def runners_of(self, job_ids: Sequence[str]) -> dict[str, ActorHandle | None]:
        """Return who takes each trial among these jobs; None for one whose study's runner is gone."""
        if not job_ids:
            return {}
        with self._database.read() as session:
            names = trials.runner_names(session, job_ids)
        return {job_id: _actor(name) for job_id, name in names.items()}

    def lose(self, study_id: str) -> None:
        """Take back the trials of a study whose runner is gone, without waiting for their leases."""
        with self._database.unit_of_work() as session:
            for lease in trials.running_leases(session, study_id):
                stalled.fail_infrastructure(session, lease, message="the runner of its study died")

    def close(self) -> None:
        """End the warm runner."""
        self._pool.close()


def _actor(name: str | None) -> ActorHandle | None:
    if name is None:
        return None
    try:
        return ray.get_actor(name)
    except ValueError:
        log.warning("the runner %s of a study is gone", name)
        return None
