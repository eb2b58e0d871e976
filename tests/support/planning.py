"""The scheduler's part of a dispatcher's turn, without a cluster: nodes are given, placed jobs are claimed."""

from collections.abc import Sequence

from xsam.services.cluster import service as cluster
from xsam.services.cluster.service import NodeSeen
from xsam.services.db.session import Database
from xsam.services.jobs import queue
from xsam.services.scheduling import last_decision
from xsam.services.scheduling import snapshot as scheduling
from xsam.services.scheduling.policy.plan import Plan, plan
from xsam.services.studies import trials

DISPATCHER = "dispatcher-1"


def report_nodes(database: Database, *nodes: NodeSeen) -> Sequence[NodeSeen]:
    """Write a dispatcher's sign of life with the machines it sees."""
    with database.unit_of_work() as session:
        cluster.report_alive(session, DISPATCHER, nodes=nodes, num_warm_runners=0)
    return nodes


def decide(database: Database, nodes: Sequence[NodeSeen]) -> Plan:
    """Plan once, claim what was placed, and publish the decision."""
    with database.read() as session:
        snapshot = scheduling.take_snapshot(session, nodes, takers=trials.has_takers())
    decision = plan(snapshot)
    for placed in decision.placements:
        with database.unit_of_work() as session:
            queue.claim(session, placed.job_id, runner=DISPATCHER, lease_s=60, placement=placed.node_ids)
    with database.unit_of_work() as session:
        last_decision.publish(session, snapshot, decision)
    return decision
