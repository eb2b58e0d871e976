"""The runner: behind a Ray actor, it owns one running job, from the claim to its last row. It trains nothing itself."""

import os

import ray
from ray.actor import ActorHandle

from xsam.services.db.session import Database
from xsam.services.jobs.queue import ClaimedJob
from xsam.services.process import freeze_imports
from xsam.workers.messages import Report, RunnerConfig
from xsam.workers.runner.attempt import Attempt, RunnerOutcome


class Runner:
    """Runs one job at a time; `run` blocks while ranks call the other methods, in other threads.

    Ranks name the attempt they work for: a call that was on its way when its job ended must not touch the next one.
    """

    def __init__(self) -> None:
        self._database: Database | None = None
        self._run: Attempt | None = None
        freeze_imports()

    def run(
        self, config: RunnerConfig, claimed: ClaimedJob, ranks: list[ActorHandle], nodes: list[str]
    ) -> RunnerOutcome:
        """Run the job to its end and store how it ended.

        Args:
            config: the settings; they come with each call, because calls to a threaded actor keep no order.
            claimed: the job and its lease.
            ranks: see `xsam.workers.runner.attempt.placed`.
            nodes: Ray node of each worker.

        The process ends instead if the job has become somebody else's.
        """
        if self._database is None:
            self._database = Database(config.database_url, pool_size=3, scheduling=config.scheduling)
        self._run = Attempt(config, self._database, claimed, ray.get_runtime_context().current_actor)
        try:
            outcome = self._run.run(ranks, nodes)
        finally:
            self._run = None
        if outcome is None:
            os._exit(0)  # whoever started this run may be gone: nobody else would end the process
        return outcome

    def record(self, job_id: str, attempt: int, report: Report) -> None:
        """Take a report of rank 0; it is stored within a moment."""
        run = self._run
        if run is not None and run.is_for(job_id, attempt):
            run.record(report)

    def wish(self, job_id: str, attempt: int) -> str | None:
        """Return what somebody wants of the running job."""
        run = self._run
        return run.wish() if run is not None and run.is_for(job_id, attempt) else None

    def may_publish(self, job_id: str, attempt: int) -> bool:
        """Return whether a rank may still put a checkpoint in place."""
        run = self._run
        return run is not None and run.is_for(job_id, attempt) and run.may_publish()
