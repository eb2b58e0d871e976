"""What the scheduler reads from rows, on both databases."""

from dataclasses import replace

import pytest

from tests.support import jobs
from tests.support.jobs import BOB
from xsam.services.cluster.service import ForeignHolding, NodeSeen
from xsam.services.db.session import Database
from xsam.services.scheduling import snapshot as scheduling
from xsam.services.scheduling.policy.plan import plan

NODE = NodeSeen("n1", "10.0.0.1", num_cpus=4, num_gpus=0)


def test_take_snapshot__silent_nodes_take_no_job_but_count_for_what_could_ever_fit(database: Database) -> None:
    """Else a job for the silent node would fail as too large for the cluster."""
    large = NodeSeen("n2", "10.0.0.2", num_cpus=16, num_gpus=0)
    job_id = jobs.submit(database, resources={"cpus_per_worker": 16})
    with database.read() as session:
        heard = plan(scheduling.take_snapshot(session, [NODE, large]))
        unheard = plan(scheduling.take_snapshot(session, [NODE, large], silent={"n2"}))
    assert [placed.node_ids for placed in heard.placements] == [("n2",)]
    assert not unheard.placements
    assert job_id in unheard.reasons
    assert list(unheard.reasons.infeasible) == []


def test_take_snapshot__leaves_out_gpus_that_are_set_aside_and_what_others_hold_and_says_so(database: Database) -> None:
    asked = {"gpus_per_worker": 1, "cpus_per_worker": 1}
    waiting = jobs.submit(database, resources=asked)
    on_cpus = jobs.submit(database, resources={"cpus_per_worker": 4})
    broken = NodeSeen("n1", "node-1", num_cpus=4, num_gpus=2, set_aside="torch sees 0 of them")
    foreign = (ForeignHolding("placement group theirs", num_gpus=0.5, num_cpus=1.0),)
    lent = NodeSeen("n2", "node-2", num_cpus=4, num_gpus=2, foreign=foreign)
    with database.read() as session:
        only_broken = plan(scheduling.take_snapshot(session, [broken]))
        both = plan(scheduling.take_snapshot(session, [broken, lent]))
        mended = plan(scheduling.take_snapshot(session, [replace(broken, set_aside=None)]))
    assert {placed.job_id for placed in only_broken.placements} == {on_cpus}, "its CPUs are as good as ever"
    assert "The GPUs of node-1 are set aside: torch sees 0 of them." in only_broken.reasons[waiting].sentence()
    assert list(only_broken.reasons.infeasible) == [], "it would have room once they work"
    assert {placed.job_id: placed.node_ids for placed in both.placements} == {waiting: ("n2",), on_cpus: ("n1",)}
    assert waiting in {placed.job_id for placed in mended.placements}


class TestLongQueues:
    def test_take_snapshot__shows_some_jobs_of_everybody_when_not_all_fit(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(scheduling, "MAX_PENDING", 6)
        sweep = [jobs.submit(database, priority=5) for _ in range(10)]
        lone = jobs.submit(database, actor=BOB)
        important = jobs.submit(database, priority=9)
        with database.read() as session:
            pending = [job.job_id for job in scheduling.take_snapshot(session, [NODE]).pending]
        assert set(pending) == {important, *sweep[:2], lone}

    def test_take_snapshot__shows_all_jobs_when_they_fit(self, database: Database) -> None:
        ids = {jobs.submit(database), jobs.submit(database, actor=BOB)}
        with database.read() as session:
            assert {job.job_id for job in scheduling.take_snapshot(session, [NODE]).pending} == ids

    def test_take_snapshot__tells_what_is_left_of_a_limit(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database, limits={"max_run_s": 100})
        jobs.set_columns(database, lease.job_id, ran_s=30.0)
        jobs.submit(database, limits={"max_run_s": 50})
        jobs.submit_and_claim(database)
        with database.read() as session:
            snapshot = scheduling.take_snapshot(session, [NODE])
        assert [job.max_run_time_s for job in snapshot.pending] == [50]
        assert sorted((job.max_run_time_s for job in snapshot.running), key=str) == [70, None]
