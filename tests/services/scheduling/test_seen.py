"""A decision that remembers the one before sees what one that reads everything sees, whatever happens in between."""

from collections.abc import Callable

import pytest

from tests.support import jobs
from xsam.services.cluster.service import NodeSeen
from xsam.services.db.session import Database
from xsam.services.jobs import queue, wishes
from xsam.services.jobs.states import FailureKind
from xsam.services.scheduling import snapshot as scheduling
from xsam.services.scheduling.policy.types import Snapshot
from xsam.services.scheduling.seen import SeenJobs

NODES = [NodeSeen("node-1", "10.0.0.1", num_cpus=4, num_gpus=0)]


def _take(database: Database, seen: SeenJobs | None = None) -> Snapshot:
    with database.read() as session:
        return scheduling.take_snapshot(session, NODES, seen=seen)


def _start(database: Database, waiting: str, running: queue.Lease) -> None:
    jobs.claim(database, waiting)


def _end(database: Database, waiting: str, running: queue.Lease) -> None:
    with database.unit_of_work() as session:
        queue.complete(session, running, summary={})


def _begin_again(database: Database, waiting: str, running: queue.Lease) -> None:
    with database.unit_of_work() as session:
        queue.release(session, running, outcome=FailureKind.PREEMPTED, message="moves")
    with database.unit_of_work() as session:
        queue.claim(session, running.job_id, runner="other", lease_s=60, placement=["node-2", "node-2"])


def _ask_to_stop(database: Database, waiting: str, running: queue.Lease) -> None:
    with database.unit_of_work() as session:
        wishes.request_preemption(session, running.job_id, reason="room")


def _change_priorities(database: Database, waiting: str, running: queue.Lease) -> None:
    with database.unit_of_work() as session:
        wishes.set_priority(session, waiting, 7, actor="ann")
        wishes.set_priority(session, running.job_id, 9, actor="ann")


def _submit(database: Database, waiting: str, running: queue.Lease) -> None:
    jobs.submit(database)


@pytest.mark.parametrize("happens", [_start, _end, _begin_again, _ask_to_stop, _change_priorities, _submit])
def test_seen_jobs__show_what_a_fresh_look_shows(
    database: Database, happens: Callable[[Database, str, queue.Lease], None]
) -> None:
    waiting, running, other = jobs.submit(database), jobs.submit_and_claim(database), jobs.submit_and_claim(database)
    seen = SeenJobs()
    before = _take(database, seen)
    again = _take(database, seen)
    assert {id(one) for one in (*again.pending, *again.running)} == {
        id(one) for one in (*before.pending, *before.running)
    }, "nothing has happened, so nothing is built anew"
    happens(database, waiting, running)
    remembered, fresh = _take(database, seen), _take(database)
    assert sorted(remembered.running, key=lambda job: job.job_id) == sorted(fresh.running, key=lambda job: job.job_id)
    assert list(remembered.pending) == list(fresh.pending)
    assert (remembered.pending, remembered.running) != (before.pending, before.running)
    assert other.job_id in {job.job_id for job in remembered.running}


def test_seen_jobs__hold_progress_for_a_while_and_then_read_it_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = jobs.submit_and_claim(database)
    seen = SeenJobs()

    def epochs() -> list[int]:
        with database.read() as session:
            now = session.scalar(scheduling.select(scheduling.db_now()))
            return [progress.epochs_done for _, _, progress in seen.running(session, now)]

    assert epochs() == [0]
    with database.unit_of_work() as session:
        queue.touch(session, lease, epochs_done=3)
    assert epochs() == [0]
    monkeypatch.setattr("xsam.services.scheduling.seen.PROGRESS_HOLDS_S", 0.0)
    assert epochs() == [3]
