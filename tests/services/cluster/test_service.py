import pytest
from sqlalchemy import update

from xsam.services.cluster import service as cluster
from xsam.services.cluster.models import ClusterNode, Dispatcher
from xsam.services.cluster.service import DispatcherId, NodeSeen
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.errors import InfeasibleError
from xsam.services.specs.job import Resources

BIG = NodeSeen("big", "10.0.0.1", num_cpus=16, num_gpus=4)
SMALL = NodeSeen("small", "10.0.0.2", num_cpus=4, num_gpus=0)


def _report(database: Database, *nodes: NodeSeen, dispatcher: str = "d1") -> None:
    with database.unit_of_work() as session:
        cluster.report_alive(session, dispatcher, nodes=nodes, num_warm_runners=2)


def _nodes(database: Database) -> list[str]:
    with database.read() as session:
        return [node.id for node in cluster.live_nodes(session)]


def test_dispatcher_id__is_read_back_from_its_text_and_from_no_other() -> None:
    one = DispatcherId("node-7", 812, "a1b2c3")
    assert str(one) == "node-7:812:a1b2c3"
    assert DispatcherId.parse(str(one)) == one
    assert [DispatcherId.parse(text) for text in ("d1", "node-7:812", "node-7:x:a1", "a:1:b:c")] == [None] * 4


class TestReports:
    def test_report_alive__again_moves_the_time_and_keeps_one_row(self, database: Database) -> None:
        _report(database, BIG)
        with database.unit_of_work() as session:
            session.execute(update(Dispatcher).values(seen_at=db_now(-3600)))
            assert cluster.live_dispatchers(session) == []
        _report(database, BIG)
        with database.read() as session:
            [dispatcher] = cluster.live_dispatchers(session)
        assert dispatcher.num_warm_runners == 2

    def test_live_nodes__leaves_out_nodes_that_are_gone(self, database: Database) -> None:
        _report(database, BIG, SMALL)
        assert _nodes(database) == ["big", "small"]
        _report(database, SMALL)
        assert _nodes(database) == ["small"]
        _report(database, BIG)
        assert _nodes(database) == ["big"]

    def test_live_nodes__leaves_out_nodes_nobody_saw_for_long(self, database: Database) -> None:
        _report(database, BIG)
        with database.unit_of_work() as session:
            session.execute(update(ClusterNode).values(seen_at=db_now(-3600)))
        assert _nodes(database) == []

    def test_report_alive__of_an_empty_cluster_marks_all_nodes_gone(self, database: Database) -> None:
        _report(database, BIG)
        _report(database)
        assert _nodes(database) == []

    def test_sign_off__forgets_the_dispatcher_only(self, database: Database) -> None:
        _report(database, BIG, dispatcher="d1")
        _report(database, BIG, dispatcher="d2")
        with database.unit_of_work() as session:
            cluster.sign_off(session, "d1")
        with database.read() as session:
            assert [one.id for one in cluster.live_dispatchers(session)] == ["d2"]


class TestFeasibility:
    @pytest.mark.parametrize(
        ("num_workers", "gpus", "cpus"),
        [(4, 1, 4), (8, 0.5, 2), (5, 0, 4), (1, 4, 16), (20, 0, 1), (12, 0.3, 1), (1, 0, 16)],
    )
    def test_check_feasible__passes_what_fits_an_empty_cluster(
        self, database: Database, num_workers: int, gpus: float, cpus: int
    ) -> None:
        _report(database, BIG, SMALL)
        wanted = Resources(num_workers=num_workers, gpus_per_worker=gpus, cpus_per_worker=cpus)
        with database.read() as session:
            cluster.check_feasible(session, wanted)

    @pytest.mark.parametrize(
        ("num_workers", "gpus", "cpus", "field"),
        [
            (5, 1, 1, "num_workers"),
            (1, 8, 1, "gpus_per_worker"),
            (1, 0, 17, "cpus_per_worker"),
            (9, 0.5, 1, "num_workers"),
            (21, 0, 1, "num_workers"),
            (13, 0.3, 1, "num_workers"),
        ],
    )
    def test_check_feasible__names_the_field_that_is_too_large(
        self, database: Database, num_workers: int, gpus: float, cpus: int, field: str
    ) -> None:
        _report(database, BIG, SMALL)
        wanted = Resources(num_workers=num_workers, gpus_per_worker=gpus, cpus_per_worker=cpus)
        with database.read() as session, pytest.raises(InfeasibleError, match="the cluster has 2 nodes") as caught:
            cluster.check_feasible(session, wanted)
        assert caught.value.field == f"resources.{field}"

    def test_check_feasible__lets_everything_pass_while_no_node_is_known(self, database: Database) -> None:
        with database.read() as session:
            cluster.check_feasible(session, Resources(num_workers=1024, gpus_per_worker=16))
