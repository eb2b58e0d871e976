"""What an API process counts of its own work, for monitoring; each process answers for itself alone."""

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, ProcessCollector

from xsam.api.http.rate_limit import OpenStreams
from xsam.services.db.session import Database

NO_ROUTE = "none"
"""The route of requests that none answers: their paths are anybody's, so they are no label."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ApiCounters:
    """Counts requests, statements, looks at the artifact store and open streams of one app.

    Args:
        database: whose statements are timed.
        streams: counts what is open.
    """

    def __init__(self, database: Database, streams: OpenStreams) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._requests = Counter(
            "xsam_http_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._latency = Histogram(
            "xsam_http_request_seconds",
            "Time to the first byte of the answer.",
            ["method", "route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        statements = Histogram(
            "xsam_api_statement_seconds", "SQL statements of this process.", buckets=_SECONDS, registry=self.registry
        )
        self.artifacts = Histogram(
            "xsam_artifact_seconds",
            "Looks at the artifact store: listing, finding, reading.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        open_streams = Gauge("xsam_open_streams", "Event and log streams open now.", registry=self.registry)
        open_streams.set_function(lambda: streams.num_open)
        database.on_statement(statements.observe)

    def count_request(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Count a request whose answer has begun."""
        known = method if method in _METHODS else "other"
        self._requests.labels(known, route or NO_ROUTE, str(status)).inc()
        self._latency.labels(known, route or NO_ROUTE).observe(seconds)
