"""What the scheduler reads from rows, on both databases."""

import pytest

from tests.support import jobs
from tests.support.jobs import BOB
from xsam.services.cluster.service import NodeSeen
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
