"""The service from Python: a typed client with the same models that the server answers with.

with Client("http://127.0.0.1:8042") as client:
    job = client.submit({"optimizer": {"variant": "xsam", "rho": 0.1}, "epochs": 30})
    job = client.wait(job.id)
    print(job.summary, [alpha.alpha for alpha in client.alphas(job.id)])
"""

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from xsam.api.client.admin import AdminClient
from xsam.api.client.errors import WaitTimeoutError
from xsam.api.client.http import Http
from xsam.api.client.jobs import JobVerbs
from xsam.api.client.studies import StudiesClient
from xsam.api.http.health import Health, Readiness
from xsam.services.artifacts.schemas import ArtifactRead, ArtifactsRead, ModelCard
from xsam.services.jobs.schemas import EventPage, EventRead, JobPage, JobRead
from xsam.services.jobs.states import JobState, is_terminal
from xsam.services.metrics.records import AlphaRecord
from xsam.services.metrics.schemas import AlphasRead, EpochRead, MetricsRead
from xsam.services.specs.catalog import Catalog, CatalogEntry
from xsam.services.specs.job import JobSpec
from xsam.services.teams.schemas import WhoAmI

_Model = TypeVar("_Model", bound=BaseModel)

_POLL_S = 0.3


class Client(JobVerbs):
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
        self._http = Http(url, timeout_s=timeout_s, num_tries=num_tries, token=token)
        self.admin = AdminClient(self._http)
        """Teams, users, tokens."""
        self.studies = StudiesClient(self._http)
        """Hyperparameter searches."""

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

    def submit(self, spec: JobSpec | Mapping[str, Any], *, idempotency_key: str | None = None) -> JobRead:
        """Queue a job.

        Args:
            spec: the specification; a mapping is checked by the server.
            idempotency_key: names this submit, so that sending it again later returns the same job; by default each
                call makes up its own.

        Raises:
            ApiError: the specification is refused; `fields` says which of its fields and why.
            UnreachableError: no connection.
        """
        document = spec.model_dump(mode="json") if isinstance(spec, JobSpec) else dict(spec)
        headers = {"Idempotency-Key": idempotency_key or secrets.token_hex(16)}
        return self._read(JobRead, "POST", "/v1/jobs", json=document, headers=headers)

    def get(self, job_id: str) -> JobRead:
        """Return a job.

        Raises:
            ApiError: no such job.
        """
        return self._read(JobRead, "GET", f"/v1/jobs/{job_id}")

    def page(
        self,
        *,
        states: Sequence[JobState] = (),
        team: str | None = None,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> JobPage:
        """Return one page of jobs, newest first.

        Raises:
            ApiError: a filter is not valid.
        """
        query: dict[str, Any] = {
            "state": [str(state) for state in states],
            "team": team,
            "name": name,
            "label": [f"{key}={value}" for key, value in (labels or {}).items()],
            "cursor": cursor,
            "limit": limit,
        }
        return self._read(JobPage, "GET", "/v1/jobs", params=query)

    def list(
        self,
        *,
        states: Sequence[JobState] = (),
        team: str | None = None,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Iterator[JobRead]:
        """Yield all jobs that match, newest first, reading page after page.

        Raises:
            ApiError: a filter is not valid.
        """
        cursor = None
        while True:
            page = self.page(states=states, team=team, name=name, labels=labels, cursor=cursor, limit=200)
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def metrics(self, job_id: str, *, after: int = 0) -> Sequence[EpochRead]:
        """Return the job's epochs above `after`, in order."""
        return self._read(MetricsRead, "GET", f"/v1/jobs/{job_id}/metrics", params={"after": after}).items

    def alphas(self, job_id: str, *, after_step: int = 0) -> Sequence[AlphaRecord]:
        """Return the job's alpha estimates after a training step, in order."""
        return self._read(AlphasRead, "GET", f"/v1/jobs/{job_id}/alpha", params={"after": after_step}).items

    def events(self, job_id: str, *, after: int = 0) -> Sequence[EventRead]:
        """Return what happened to the job after the event with this id, oldest first, at most 1,000 events."""
        query = {"after": after, "limit": 1000}
        return self._read(EventPage, "GET", f"/v1/jobs/{job_id}/events", params=query).items

    def follow_events(self, job_id: str, *, after: int = 0) -> Iterator[EventRead]:
        """Yield the job's events as they happen, until it has ended; a broken connection is taken up again."""
        for message in self._http.server_sent_events(f"/v1/jobs/{job_id}/events", after=after):
            if message.event != "end":
                yield EventRead.model_validate_json(message.data)

    def logs(self, job_id: str, *, attempt: int | None = None, rank: int | None = None, tail: int | None = None) -> str:
        """Return log lines as text, `TIME [rank N] TEXT` each.

        Args:
            job_id: whose log.
            attempt: lines of this attempt; by default of the latest.
            rank: lines of this rank; by default of all, merged by time.
            tail: only the last N lines.
        """
        query = {"attempt": attempt, "rank": rank, "tail": tail}
        return self._http.send("GET", f"/v1/jobs/{job_id}/logs", params=query).text

    def follow_logs(
        self, job_id: str, *, attempt: int | None = None, rank: int | None = None, tail: int | None = None
    ) -> Iterator[str]:
        """Yield log lines as they come, until the job has ended.

        Raises:
            UnreachableError: the connection broke; lines can't be resumed where it did.
        """
        query = {"attempt": attempt, "rank": rank, "tail": tail, "follow": True}
        yield from self._http.lines(f"/v1/jobs/{job_id}/logs", params=query)

    def artifacts(self, job_id: str) -> Sequence[ArtifactRead]:
        """Return the job's files."""
        return self._read(ArtifactsRead, "GET", f"/v1/jobs/{job_id}/artifacts").items

    def model_card(self, job_id: str) -> ModelCard:
        """Return how the job's weights came about."""
        return self._read(ModelCard, "GET", f"/v1/jobs/{job_id}/model-card")

    def download(self, job_id: str, name: str, target: Path) -> None:
        """Write one of the job's files to `target`; a download that broke off goes on where it did.

        Raises:
            ApiError: the job has no such file.
            UnreachableError: the connection broke too often; `target` with the suffix `.part` holds what came.
        """
        self._http.download(f"/v1/jobs/{job_id}/artifacts/{quote(name)}", target)

    def wait(self, job_id: str, *, timeout_s: float | None = None) -> JobRead:
        """Return the job once it has ended, however it ended.

        Raises:
            WaitTimeoutError: it has not ended in time; it goes on.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            job = self.get(job_id)
            if is_terminal(job.state):
                return job
            if deadline_s is not None and time.monotonic() >= deadline_s:
                raise WaitTimeoutError(f"job {job_id} is still {job.state} after {timeout_s:g} s")
            time.sleep(_POLL_S)

    def optimizers(self) -> Sequence[CatalogEntry]:
        """Return the optimizers a job may name."""
        return self._read(Catalog, "GET", "/v1/optimizers").items

    def models(self) -> Sequence[CatalogEntry]:
        """Return the models a job may name."""
        return self._read(Catalog, "GET", "/v1/models").items

    def datasets(self) -> Sequence[CatalogEntry]:
        """Return the datasets a job may name."""
        return self._read(Catalog, "GET", "/v1/datasets").items

    def whoami(self) -> WhoAmI:
        """Return who the server takes the caller for.

        Raises:
            ApiError: the token is not valid.
        """
        return self._read(WhoAmI, "GET", "/v1/whoami")

    def health(self) -> Health:
        """Return the server's sign of life."""
        return self._read(Health, "GET", "/healthz")

    def readiness(self) -> Readiness:
        """Return the dispatchers that will run jobs.

        Raises:
            ApiError: with code `not_ready`; the detail says what is missing.
        """
        return self._read(Readiness, "GET", "/readyz")

    def _read(self, model: type[_Model], method: str, path: str, **options: Any) -> _Model:
        return self._http.read(model, method, path, **options)
