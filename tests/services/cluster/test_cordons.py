"""Nodes set apart: what takes no new jobs, who has to leave, and what people are told."""

import pytest
from sqlalchemy import update

from tests.support import jobs, planning
from xsam.services.cluster import cordons
from xsam.services.cluster.cordons import EVERYWHERE
from xsam.services.cluster.models import Cordon
from xsam.services.cluster.service import NodeSeen
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.errors import NotFoundError
from xsam.services.jobs import draining
from xsam.services.jobs.states import JobState, Wish
from xsam.services.reports import cluster as overview
from xsam.services.reports import why
from xsam.services.reports.schemas import WhyRead

FIRST = NodeSeen("n1", "node-1", num_cpus=4, num_gpus=0)
SECOND = NodeSeen("n2", "node-2", num_cpus=4, num_gpus=0)
NODES = (FIRST, SECOND)


@pytest.fixture(autouse=True)
def _cluster(database: Database) -> None:
    planning.report_nodes(database, *NODES)


def _put(database: Database, node: str, drain_within_s: float | None = None, reason: str | None = None) -> Cordon:
    with database.unit_of_work() as session:
        return cordons.put(session, node, reason=reason, by="root", drain_within_s=drain_within_s)


def _lift(database: Database, node: str) -> None:
    with database.unit_of_work() as session:
        cordons.lift(session, node)


def _placed(database: Database) -> set[str]:
    return {node for placed in planning.decide(database, NODES).placements for node in placed.node_ids}


def _why(database: Database, job_id: str) -> WhyRead:
    with database.read() as session:
        return why.explain(session, job_id)


def _to_move(database: Database) -> list[str]:
    with database.read() as session:
        return draining.jobs_to_move(session)


@pytest.mark.parametrize("name", ["node-1", "n1"])
def test_cordoned_node__by_host_or_id_gets_no_job_until_it_is_lifted(database: Database, name: str) -> None:
    _put(database, name)
    ids = [jobs.submit(database, resources={"cpus_per_worker": 4}) for _ in range(2)]
    assert _placed(database) == {"n2"}
    assert [jobs.state(database, one) for one in ids] == [JobState.RUNNING, JobState.QUEUED]
    _lift(database, name)
    assert _placed(database) == {"n1"}


def test_cordon_of_a_host__holds_for_the_node_that_comes_back_there(database: Database) -> None:
    _put(database, "node-1")
    with database.read() as session:
        assert cordons.read(session).of("node-1", "another-id") is not None


def test_why__says_which_node_is_set_apart_and_for_what(database: Database) -> None:
    _put(database, "node-1", reason="new fans")
    jobs.submit(database, resources={"cpus_per_worker": 4})
    planning.decide(database, NODES)
    job_id = jobs.submit(database, resources={"cpus_per_worker": 4})
    planning.decide(database, NODES)
    assert "node-1 takes no new jobs: new fans." in _why(database, job_id).sentence


def test_maintenance__lets_nothing_start_and_says_so_once(database: Database) -> None:
    _put(database, EVERYWHERE, reason="new kernel")
    job_id = jobs.submit(database)
    assert _placed(database) == set()
    sentence = _why(database, job_id).sentence
    assert sentence.count("The service is in maintenance: new kernel.") == 1
    with database.read() as session:
        found = overview.overview(session)
    assert found.maintenance is not None
    assert (found.maintenance.reason, found.maintenance.set_by) == ("new kernel", "root")
    assert all(node.cordon is not None for node in found.nodes)
    _lift(database, EVERYWHERE)
    assert len(_placed(database)) == 1


def test_job_that_is_too_large_for_the_rest__is_not_failed_for_a_cordon(database: Database) -> None:
    _put(database, "node-1")
    jobs.submit(database, resources={"num_workers": 2, "cpus_per_worker": 4})
    decision = planning.decide(database, NODES)
    assert list(decision.reasons.infeasible) == []


def test_cordon__lets_running_jobs_finish(database: Database) -> None:
    jobs.submit(database)
    [node] = _placed(database)
    _put(database, node)
    assert _to_move(database) == []


def test_drain__asks_only_jobs_of_the_node_once_and_only_after_the_time(database: Database) -> None:
    ids = [jobs.submit(database, resources={"cpus_per_worker": 4}) for _ in range(2)]
    _placed(database)
    on_first = next(one for one in ids if jobs.read(database, one).placement == ["n1"])
    _put(database, "node-1", drain_within_s=60)
    assert _to_move(database) == []
    with database.unit_of_work() as session:
        session.execute(update(Cordon).values(drain_at=db_now(-1)))
    assert _to_move(database) == [on_first]
    with database.unit_of_work() as session:
        draining.ask_to_move(session, on_first)
    assert jobs.read(database, on_first).wish == Wish.PREEMPT
    assert _to_move(database) == []


def test_drain_of_everything__moves_all(database: Database) -> None:
    ids = [jobs.submit(database) for _ in range(3)]
    _placed(database)
    _put(database, EVERYWHERE, drain_within_s=0)
    assert sorted(_to_move(database)) == sorted(ids)


def test_cordon__can_be_changed_into_a_drain(database: Database) -> None:
    assert _put(database, "node-1").drain_at is None
    assert _put(database, "node-1", drain_within_s=5).drain_at is not None


def test_unknown_node__is_refused_with_the_names_there_are(database: Database) -> None:
    with pytest.raises(NotFoundError, match="no node node-9; there are node-1, node-2"):
        _put(database, "node-9")
    with pytest.raises(NotFoundError, match="node-1 is not cordoned"):
        _lift(database, "node-1")
    with pytest.raises(NotFoundError, match="not in maintenance"):
        _lift(database, EVERYWHERE)
