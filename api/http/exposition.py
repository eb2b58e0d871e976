"""The service's state as Prometheus reads it: what rows tell, and what this process counted.

Row-derived series are the same from every API process, so dashboards take `max by (...)` of them.
"""

from collections.abc import Iterator, Sequence

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from xsam.api.http.counters import ApiCounters
from xsam.api.http.health import VERSION
from xsam.services.cluster.counters import Histogram
from xsam.services.reports.gauges import DispatcherGauges, Gauges, NodeGauges, TeamJobs

CONTENT_TYPE = "text/plain; version=0.0.4"
"""A character set is added where it is sent."""


def exposition(counters: ApiCounters, gauges: Gauges | None) -> bytes:
    """Return the page that Prometheus reads.

    Args:
        counters: of this process.
        gauges: what rows tell; None while the database is away.
    """
    return generate_latest(_Page(counters, gauges))


class _Page(Collector):
    def __init__(self, counters: ApiCounters, gauges: Gauges | None) -> None:
        self._counters = counters
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        yield _gauge("xsam_build_info", "This process's release.", ["version"], [((VERSION,), 1)])
        yield _gauge("xsam_database_up", "Whether the database answered.", [], [((), self._gauges is not None)])
        yield from self._counters.registry.collect()
        if self._gauges is not None:
            yield from _of_jobs(self._gauges)
            yield from _of_nodes(self._gauges)
            yield from _of_dispatchers(self._gauges.dispatchers)


_Rows = Sequence[tuple[tuple[str, ...], float]]


def _gauge(name: str, text: str, labels: list[str], rows: _Rows) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, number in rows:
        family.add_metric(values, float(number))
    return family


def _counter(name: str, text: str, labels: list[str], rows: _Rows) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, number in rows:
        family.add_metric(values, float(number))
    return family


def _of_jobs(gauges: Gauges) -> Iterator[Metric]:
    jobs, by_state = gauges.jobs, ["team", "state"]
    queued = [one for one in jobs if one.state == "queued"]
    running = [one for one in jobs if one.state == "running"]
    yield _gauge("xsam_jobs", "Jobs that have not ended.", by_state, _rows(jobs, "num_jobs", with_state=True))
    yield _gauge("xsam_studies_running", "Studies under way.", [], [((), gauges.num_studies)])
    yield _gauge("xsam_queue_oldest_seconds", "Age of the oldest queued job.", ["team"], _rows(queued, "oldest_s"))
    yield _gauge("xsam_queue_gpus", "GPUs that queued jobs ask for.", ["team"], _rows(queued, "num_gpus"))
    yield _gauge("xsam_gpus_held", "GPUs that running jobs hold.", ["team"], _rows(running, "num_gpus"))
    yield _gauge("xsam_cpus_held", "CPUs that running jobs hold.", ["team"], _rows(running, "num_cpus"))
    overdue = "Running jobs whose lease has run out and whom no dispatcher has taken back yet."
    yield _gauge("xsam_leases_overdue", overdue, ["team"], _rows(running, "num_overdue"))
    idle = "Running jobs whose GPUs are known to be idle."
    yield _gauge("xsam_jobs_idle", idle, ["team"], _rows(running, "num_idle"))
    unused = "GPUs that these jobs hold."
    yield _gauge("xsam_gpus_idle", unused, ["team"], _rows(running, "idle_gpus"))
    measured = [one for one in running if one.utilization is not None]
    used = "Utilization of running jobs' GPUs where all of a job's are measured, 0 to 1: mean over GPUs."
    yield _gauge("xsam_gpu_utilization", used, ["team"], _rows(measured, "utilization"))
    held = "Memory in use on these GPUs."
    yield _gauge("xsam_gpu_memory_used_bytes", held, ["team"], _rows(measured, "gpu_used_bytes"))
    waiting = [
        ((team, code), float(number)) for team, codes in gauges.waiting.items() for code, number in codes.items()
    ]
    yield _gauge("xsam_queue_jobs_waiting", "Queued jobs by what they wait for.", ["team", "reason"], waiting)
    if gauges.decided_s_ago is not None:
        age = "Since the last published decision; one is made only while jobs wait."
        yield _gauge("xsam_decision_age_seconds", age, [], [((), gauges.decided_s_ago)])
    outcomes = [((team, outcome), float(number)) for team, outcome, number in gauges.outcomes]
    yield _counter("xsam_attempts_ended", "Attempts by how they ended.", ["team", "outcome"], outcomes)


def _rows(jobs: Sequence[TeamJobs], field: str, *, with_state: bool = False) -> _Rows:
    return [((one.team, one.state) if with_state else (one.team,), float(getattr(one, field))) for one in jobs]


def _of_nodes(gauges: Gauges) -> Iterator[Metric]:
    by_node = ["host", "node"]

    def rows(field: str) -> _Rows:
        return [(_node(one), float(getattr(one, field))) for one in gauges.nodes]

    yield _gauge("xsam_node_gpus", "GPUs of a living node.", by_node, rows("num_gpus"))
    yield _gauge("xsam_node_cpus", "CPUs of a living node.", by_node, rows("num_cpus"))
    foreign = "Held in Ray by no job of this service: other people's work, or a leak."
    yield _gauge("xsam_node_foreign_gpus", foreign, by_node, rows("foreign_gpus"))
    yield _gauge("xsam_node_foreign_cpus", foreign, by_node, rows("foreign_cpus"))
    yield _gauge("xsam_node_set_aside", "Whether its GPUs are not used.", by_node, rows("is_set_aside"))


def _node(node: NodeGauges) -> tuple[str, str]:
    return node.host, node.node_id[:12]


def _of_dispatchers(found: Sequence[DispatcherGauges]) -> Iterator[Metric]:
    by_name = ["dispatcher"]
    counters = [(one.name, one.counters) for one in found]
    leads = [((one.name,), float(one.is_leader)) for one in found]
    yield _gauge("xsam_dispatcher_leads", "Living dispatchers; 1 is the one that places jobs.", by_name, leads)
    silent = [((one.name,), one.silent_s) for one in found]
    yield _gauge("xsam_dispatcher_silent_seconds", "Since its last sign of life.", by_name, silent)
    for field, name, text in (
        ("num_placements", "xsam_placements", "Jobs that got a place."),
        ("num_preemptions", "xsam_preemptions", "Jobs asked to make room."),
        ("num_leases_lost", "xsam_leases_lost", "Attempts taken back: silent, or not stopping when asked to."),
    ):
        yield _counter(name, text, by_name, [((who,), float(getattr(one, field))) for who, one in counters])
    yield _histogram("xsam_turn_seconds", "A dispatcher's turn.", [(who, one.turns) for who, one in counters])
    decisions = [(who, one.decisions) for who, one in counters]
    yield _histogram("xsam_decision_seconds", "Reading the queue, planning, acting on the plan.", decisions)
    statements = [(who, one.statements) for who, one in counters]
    yield _histogram("xsam_dispatcher_statement_seconds", "SQL statements of a dispatcher.", statements)


def _histogram(name: str, text: str, rows: Sequence[tuple[str, Histogram]]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=["dispatcher"])
    for who, one in rows:
        family.add_metric([who], one.cumulative(), sum_value=one.sum_s)
    return family
