"""Two dispatchers on one cluster, and processes that were away while somebody else took their job."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest
from sqlalchemy import update

from tests.support.live_service import LiveService
from tests.support.processes import is_alive
from xsam.services.cluster import service as cluster
from xsam.services.cluster.service import DispatcherId
from xsam.services.db.clock import db_now
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import JobState
from xsam.workers.dispatch.dispatcher import Dispatcher

pytestmark = pytest.mark.ray


@pytest.fixture
def second(live: LiveService) -> Iterator[Dispatcher]:
    """Another dispatcher on the same cluster and database."""
    dispatcher = Dispatcher(live.settings, live.database)
    yield dispatcher
    dispatcher.drain()


def test_two_dispatchers__never_run_a_job_twice(live: LiveService, second: Dispatcher) -> None:
    job_ids = [live.submit(epochs=1, seed=seed, optimizer={"variant": "sgd"}) for seed in range(8)]

    def all_ended() -> bool:
        second.turn()
        return all(live.job(job_id).state == JobState.SUCCEEDED for job_id in job_ids)

    live.turn_until(all_ended)
    assert [live.job(job_id).attempt for job_id in job_ids] == [1] * 8
    live.turn_until(live.all_resources_are_free)


def test_recover__forgets_dispatchers_of_this_machine_that_are_dead_and_no_others(live: LiveService) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    dead = str(DispatcherId(socket.gethostname(), ended.pid, "a1"))
    elsewhere = str(DispatcherId("elsewhere", ended.pid, "a1"))
    with live.database.unit_of_work() as session:
        for one in (dead, elsewhere):
            cluster.report_alive(session, one, nodes=live.dispatcher.nodes, num_warm_runners=0)
    live.dispatcher.recover()
    with live.database.unit_of_work() as session:
        known = cluster.dispatchers(session)
        cluster.sign_off(session, elsewhere)
    assert dead not in known
    assert elsewhere in known


def test_runner_that_wakes_after_its_lease_expired__changes_nothing_and_ends(
    live: LiveService, second: Dispatcher
) -> None:
    job_id = live.submit(epochs=60, optimizer={"variant": "sam"})
    live.reach_epoch(job_id, 2)
    live.dispatcher.resign()
    runner, rank = (live.training_event(job_id)[name] for name in ("runner_pid", "rank_pid"))
    os.kill(runner, signal.SIGSTOP)
    with live.database.unit_of_work() as session:
        session.execute(update(Job).where(Job.id == job_id).values(lease_expires_at=db_now(-1)))
    live.turn_until(lambda: live.job(job_id).attempt == 2, second)
    os.kill(runner, signal.SIGCONT)
    live.turn_until(lambda: live.job(job_id).state == JobState.SUCCEEDED, second)
    live.turn_until(lambda: not is_alive(runner) and not is_alive(rank), second)
    attempts = [row.attempt for row in live.epochs(job_id)]
    assert [row.epoch for row in live.epochs(job_id)] == list(range(1, 61))
    assert attempts == sorted(attempts), "rows of the first attempt after rows of the second"
    assert [attempt.outcome for attempt in live.attempts(job_id)] == ["infrastructure", "succeeded"]
