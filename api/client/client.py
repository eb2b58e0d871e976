"""The service from Python: a typed client with the same models that the server answers with.

with Client("http://127.0.0.1:8042") as client:
    job = client.submit({"optimizer": {"variant": "xsam", "rho": 0.1}, "epochs": 30})
    job = client.wait(job.id)
    print(job.summary, [alpha.alpha for alpha in client.alphas(job.id)])
"""

from collections.abc import Iterator, Sequence
from datetime import date
from types import TracebackType
from typing import Any, Self

from xsam.api.client.admin import AdminClient
from xsam.api.client.bundles import BundlesClient
from xsam.api.client.device_login import DeviceLoginClient
from xsam.api.client.http import Http
from xsam.api.client.jobs import JobsClient
from xsam.api.client.lab import LabClient
from xsam.api.client.requirements import RequirementsClient
from xsam.api.client.studies import StudiesClient
from xsam.api.http.health import Health, Readiness
from xsam.services.cluster.schemas import ClusterRead
from xsam.services.reports.changes import ChangesRead
from xsam.services.reports.occupancy import OccupancyRead, SamplesRead
from xsam.services.reports.schemas import AttentionRead, QueueRead, StatusRead
from xsam.services.reports.spending import SpendingRead
from xsam.services.specs.catalog import Catalog, CatalogEntry
from xsam.services.teams.schemas import WhoAmI
from xsam.services.usage.schemas import UsageRead


class Client(JobsClient):
    """Talks to one server. Safe to share between threads.

    Reading, cancelling and submitting are tried again when the connection fails: a submit carries an Idempotency-Key,
    so a repeated one can't make a second job.

    Args:
        url: where the server listens, for example `http://127.0.0.1:8042`.
        timeout_s: how long one answer may take to start or to go on.
        num_tries: how often a request is sent before the error is the caller's.
        token: says who is calling; None for a service that runs for one user.
    """

    def __init__(self, url: str, *, timeout_s: float = 30.0, num_tries: int = 4, token: str | None = None) -> None:
        super().__init__(Http(url, timeout_s=timeout_s, num_tries=num_tries, token=token))
        self.admin = AdminClient(self._http)
        """Teams, users, tokens."""
        self.device_login = DeviceLoginClient(self._http)
        """Sign-in that a person confirms at the page."""
        self.bundles = BundlesClient(self._http)
        self.requirements = RequirementsClient(self._http)
        """Code that jobs bring."""
        self.studies = StudiesClient(self._http)
        """Hyperparameter searches."""
        self.lab = LabClient(self._http)
        """The paper's figures from own jobs."""

    def __enter__(self) -> Self:
        """Return the client; leaving the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def changes(self, *, after: str | None = None) -> ChangesRead:
        """Return how what has changed since a cursor stands now; without one, a cursor to begin with."""
        return self._http.read(ChangesRead, "GET", "/v1/changes", params={"after": after})

    def follow_changes(self, *, after: str | None = None) -> Iterator[ChangesRead]:
        """Yield what changes of jobs, studies and trials as it happens, without end; the first answer may be empty."""
        for message in self._http.server_sent_events("/v1/changes", after=after):
            yield ChangesRead.model_validate_json(message.data)

    def queue(self, *, after: int = 0, limit: int = 50) -> QueueRead:
        """Return a page of the queue, in the order in which jobs would start."""
        return self._http.read(QueueRead, "GET", "/v1/queue", params={"after": after, "limit": limit})

    def cluster(self) -> ClusterRead:
        """Return the machines as last seen, and what runs where."""
        return self._http.read(ClusterRead, "GET", "/v1/cluster")

    def usage(self, *, since: date | None = None, until: date | None = None, team: str | None = None) -> UsageRead:
        """Return what was used on some days, by team and user; by default in the last 30 days."""
        days = {"since": since and since.isoformat(), "until": until and until.isoformat()}
        return self._http.read(UsageRead, "GET", "/v1/usage", params={**days, "team": team})

    def usage_sums(
        self,
        *,
        by: str = "optimizer",
        since: str | None = None,
        until: str | None = None,
        team: str | None = None,
        limit: int = 50,
    ) -> SpendingRead:
        """Return what was used over a time, by `optimizer`, `model`, `study`, `job`, `user` or `team`, most first."""
        query = {"by": by, "since": since, "until": until, "team": team, "limit": limit}
        return self._http.read(SpendingRead, "GET", "/v1/usage/sums", params=query)

    def occupancy(
        self, *, since: str | None = None, until: str | None = None, node: str | None = None
    ) -> OccupancyRead:
        """Return which job held which node from when to when; by default over the last day."""
        query = {"since": since, "until": until, "node": node}
        return self._http.read(OccupancyRead, "GET", "/v1/cluster/occupancy", params=query)

    def samples(self, *, since: str | None = None, until: str | None = None, points: int | None = None) -> SamplesRead:
        """Return how full the cluster was; by default over the last day."""
        query = {"since": since, "until": until, "points": points}
        return self._http.read(SamplesRead, "GET", "/v1/cluster/samples", params=query)

    def status(self) -> StatusRead:
        """Return the release, who leads, whether Ray answers, and the database's schema."""
        return self._http.read(StatusRead, "GET", "/v1/status")

    def attention(self) -> AttentionRead:
        """Return what the caller's team should look at: stalled jobs, paused studies, quotas, an ending token."""
        return self._http.read(AttentionRead, "GET", "/v1/attention")

    def schema(self, kind: str) -> dict[str, Any]:
        """Return the JSON Schema of a specification, `job` or `study`, with units and groups."""
        found: dict[str, Any] = self._http.send("GET", f"/v1/schemas/{kind}").json()
        return found

    def optimizers(self) -> Sequence[CatalogEntry]:
        """Return the optimizers a job may name."""
        return self._http.read(Catalog, "GET", "/v1/optimizers").items

    def models(self) -> Sequence[CatalogEntry]:
        """Return the models a job may name."""
        return self._http.read(Catalog, "GET", "/v1/models").items

    def datasets(self) -> Sequence[CatalogEntry]:
        """Return the datasets a job may name."""
        return self._http.read(Catalog, "GET", "/v1/datasets").items

    def whoami(self) -> WhoAmI:
        """Return who the server takes the caller for.

        Raises:
            ApiError: the token is not valid.
        """
        return self._http.read(WhoAmI, "GET", "/v1/whoami")

    def health(self) -> Health:
        """Return the server's sign of life."""
        return self._http.read(Health, "GET", "/healthz")

    def readiness(self) -> Readiness:
        """Return the dispatchers that will run jobs.

        Raises:
            ApiError: with code `not_ready`; the detail says what is missing.
        """
        return self._http.read(Readiness, "GET", "/readyz")
