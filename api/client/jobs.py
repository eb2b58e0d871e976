"""Jobs from Python: submit, read, follow, change, one or several at once."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack
from urllib.parse import quote

from xsam.api.client.errors import WaitTimeoutError
from xsam.api.client.http import Http, document, once
from xsam.services.artifacts.log_lines import LinesRead
from xsam.services.artifacts.schemas import ArtifactRead, ArtifactsRead, ModelCard
from xsam.services.checks.schemas import CheckRead
from xsam.services.jobs.schemas import AttemptRead, AttemptsRead, BulkRead, EventPage, EventRead, JobPage, JobRead
from xsam.services.jobs.states import JobState, is_terminal
from xsam.services.metrics.records import AlphaRecord
from xsam.services.metrics.schemas import AlphaMap, AlphasRead, EpochRead, MetricsRead, SeveralMetrics
from xsam.services.reports.job_preview import JobPreview
from xsam.services.reports.job_rows import JobCount, JobRowPage
from xsam.services.reports.schemas import WhyRead
from xsam.services.specs.job import JobSpec

NEWEST_FIRST = "-created"
MOST_COMPARED = 20
"""Jobs whose epochs one call reads."""
_POLL_S = 0.3


class JobsWanted(TypedDict, total=False):
    """Which jobs are meant; what is left out, or None, filters nothing."""

    states: Sequence[JobState]
    team: str | None
    user: str | None
    name: str | None
    q: str | None
    """A part of the name, or the beginning of the id."""
    labels: Mapping[str, str] | None
    optimizer: str | None
    model: str | None
    dataset: str | None
    failures: Sequence[str]
    since: str | None
    """A day or a time."""
    until: str | None
    study: str | None
    """Its trials, instead of jobs that stand for themselves; not for what changes jobs."""


class JobsClient:
    """The client's part about jobs. Every method raises ApiError where the server refuses.

    Args:
        http: the client's connections.
    """

    def __init__(self, http: Http) -> None:
        self._http = http

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
        return self._http.read(JobRead, "POST", "/v1/jobs", json=document(spec), headers=once(idempotency_key))

    def get(self, job_id: str) -> JobRead:
        """Return a job.

        Raises:
            ApiError: no such job.
        """
        return self._http.read(JobRead, "GET", f"/v1/jobs/{job_id}")

    def page(
        self, *, cursor: str | None = None, limit: int = 50, sort: str = NEWEST_FIRST, **wanted: Unpack[JobsWanted]
    ) -> JobPage:
        """Return one page of jobs.

        Args:
            cursor: `next_cursor` of the page before, or `previous_cursor` of the one after, made with the same `sort`.
            limit: jobs on the page.
            sort: `created`, `name`, `state`, `user`, `best` or `cost`; a minus before it descends.
            wanted: which jobs, as for `list`.

        Raises:
            ApiError: a filter is not valid.
        """
        query = {**job_query(wanted), "cursor": cursor, "limit": limit, "sort": sort}
        return self._http.read(JobPage, "GET", "/v1/jobs", params=query)

    def rows(
        self, *, cursor: str | None = None, limit: int = 50, sort: str = NEWEST_FIRST, **wanted: Unpack[JobsWanted]
    ) -> JobRowPage:
        """Return one page of jobs without their specifications, but with why they wait and what they have cost.

        Arguments and errors as of `page`.
        """
        query = {**job_query(wanted), "cursor": cursor, "limit": limit, "sort": sort, "fields": "brief"}
        return self._http.read(JobRowPage, "GET", "/v1/jobs", params=query)

    def list(self, *, sort: str = NEWEST_FIRST, **wanted: Unpack[JobsWanted]) -> Iterator[JobRead]:
        """Return all jobs that match, newest first, reading page after page as they are asked for.

        Args:
            sort: as for `page`.
            wanted: which jobs.

        Raises:
            ApiError: a filter is not valid.
        """
        return self._http.pages(JobPage, "/v1/jobs", {**job_query(wanted), "sort": sort})

    def count(self, *, by: Sequence[str] = (), **wanted: Unpack[JobsWanted]) -> JobCount:
        """Return how many jobs match, in all and by `state`, `team` or `user`; exact up to ten thousand.

        Raises:
            ApiError: a filter is not valid.
        """
        return self._http.read(JobCount, "GET", "/v1/jobs:count", params={**job_query(wanted), "by": list(by)})

    def metrics(self, job_id: str, *, after: int = 0, points: int | None = None) -> Sequence[EpochRead]:
        """Return the job's epochs above `after`, in order; thinned to so many points where asked for."""
        query = {"after": after, "points": points}
        return self._http.read(MetricsRead, "GET", f"/v1/jobs/{job_id}/metrics", params=query).items

    def metrics_of(self, job_ids: Sequence[str], *, points: int | None = None) -> Mapping[str, Sequence[EpochRead]]:
        """Return several jobs' epochs by job, to compare them; at most twenty jobs."""
        query = {"job": list(job_ids), "points": points}
        found = self._http.read(SeveralMetrics, "GET", "/v1/jobs:metrics", params=query)
        return {job.job_id: job.items for job in found.items}

    def alphas(self, job_id: str, *, after_step: int = 0, points: int | None = None) -> Sequence[AlphaRecord]:
        """Return the job's alpha estimates after a training step, in order; thinned where asked for."""
        query = {"after": after_step, "points": points}
        return self._http.read(AlphasRead, "GET", f"/v1/jobs/{job_id}/alpha", params=query).items

    def alpha_map(self, job_id: str, *, columns: int = 200, rows: int = 64) -> AlphaMap:
        """Return all of the job's probe curves on one grid."""
        query = {"columns": columns, "rows": rows}
        return self._http.read(AlphaMap, "GET", f"/v1/jobs/{job_id}/alpha-map", params=query)

    def events(self, job_id: str, *, after: int = 0) -> Sequence[EventRead]:
        """Return what happened to the job after the event with this id, oldest first, at most 1,000 events."""
        query = {"after": after, "limit": 1000}
        return self._http.read(EventPage, "GET", f"/v1/jobs/{job_id}/events", params=query).items

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

    def log_lines(  # noqa: PLR0913 - ways to say which lines
        self,
        job_id: str,
        *,
        attempt: int | None = None,
        rank: int | None = None,
        from_line: int | None = None,
        before: int | None = None,
        find: str | None = None,
        limit: int = 500,
    ) -> LinesRead:
        """Return numbered log lines: from one on, before one, or the last ones; with `find`, those with a text."""
        which = {"attempt": attempt, "rank": rank, "from_line": from_line, "before": before}
        query = {**which, "find": find, "limit": limit}
        return self._http.read(LinesRead, "GET", f"/v1/jobs/{job_id}/log-lines", params=query)

    def artifacts(self, job_id: str) -> Sequence[ArtifactRead]:
        """Return the job's files."""
        return self.artifacts_and_gone(job_id).items

    def artifacts_and_gone(self, job_id: str) -> ArtifactsRead:
        """Return the job's files, and since when others are gone."""
        return self._http.read(ArtifactsRead, "GET", f"/v1/jobs/{job_id}/artifacts")

    def model_card(self, job_id: str) -> ModelCard:
        """Return how the job's weights came about."""
        return self._http.read(ModelCard, "GET", f"/v1/jobs/{job_id}/model-card")

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

    def cancel(self, job_id: str) -> JobRead:
        """Cancel a job; one that runs is asked to stop and is returned with its wish."""
        return self._tell(job_id, "cancel")

    def pause(self, job_id: str) -> JobRead:
        """Hold a job; one that runs is asked to save its state and is returned with its wish."""
        return self._tell(job_id, "pause")

    def resume(self, job_id: str) -> JobRead:
        """Put a paused job back in the queue."""
        return self._tell(job_id, "resume")

    def retry(self, job_id: str) -> JobRead:
        """Queue a failed or cancelled job again, from its newest checkpoint."""
        return self._tell(job_id, "retry")

    def update(
        self, job_id: str, *, priority: int | None = None, labels: Mapping[str, str | None] | None = None
    ) -> JobRead:
        """Change priority and labels; None as a label's value removes it."""
        return self._http.read(JobRead, "PATCH", f"/v1/jobs/{job_id}", json=_change(priority, labels))

    def clone(
        self, job_id: str, changes: Mapping[str, Any] | None = None, *, idempotency_key: str | None = None
    ) -> JobRead:
        """Queue a new job from another one's specification, changed by a JSON merge patch."""
        wanted = {"changes": dict(changes or {})}
        return self._http.read(JobRead, "POST", f"/v1/jobs/{job_id}/clone", json=wanted, headers=once(idempotency_key))

    def each(
        self, verb: str, *, ids: Sequence[str] = (), dry_run: bool = False, **wanted: Unpack[JobsWanted]
    ) -> BulkRead:
        """Do one of `cancel`, `pause`, `resume`, `retry` to several jobs: to those named, or all that match.

        Every job has its own result; one that is refused stops none of the others.

        Args:
            verb: what to do.
            ids: the jobs.
            dry_run: only say which jobs there are.
            wanted: which jobs, where there are no ids, as for `list`.
        """
        document = {**_selection(ids, wanted), "dry_run": dry_run}
        return self._http.read(BulkRead, "POST", f"/v1/jobs:{verb}", json=document)

    def update_each(
        self,
        *,
        priority: int | None = None,
        set_labels: Mapping[str, str | None] | None = None,
        ids: Sequence[str] = (),
        dry_run: bool = False,
        **wanted: Unpack[JobsWanted],
    ) -> BulkRead:
        """Change priority and labels of several jobs: of those named, or all that match; arguments as of `each`."""
        document = {**_selection(ids, wanted), "dry_run": dry_run, "change": _change(priority, set_labels)}
        return self._http.read(BulkRead, "POST", "/v1/jobs:update", json=document)

    def preview(self, spec: JobSpec | Mapping[str, Any]) -> JobPreview:
        """Return what a job would take and where it would stand; nothing is queued."""
        return self._http.read(JobPreview, "POST", "/v1/jobs:preview", json=document(spec))

    def check(self, spec: JobSpec | Mapping[str, Any], *, wait_s: float = 120.0) -> CheckRead:
        """Have a job's own code tried: imports, one batch forward and backward; nothing is queued.

        Returns:
            the check with its answer, or without one if no dispatcher gave it within `wait_s`.
        """
        found = self._http.read(CheckRead, "POST", "/v1/checks", json=document(spec))
        gives_up_s = time.monotonic() + wait_s
        while found.state != "done" and time.monotonic() < gives_up_s:
            time.sleep(_POLL_S)
            found = self._http.read(CheckRead, "GET", f"/v1/checks/{found.id}")
        return found

    def why(self, job_id: str) -> WhyRead:
        """Return why a job stands where it does."""
        return self._http.read(WhyRead, "GET", f"/v1/jobs/{job_id}/why")

    def attempts(self, job_id: str) -> Sequence[AttemptRead]:
        """Return the job's attempts, oldest first, with the tracebacks of failed ones."""
        return self._http.read(AttemptsRead, "GET", f"/v1/jobs/{job_id}/attempts").items

    def _tell(self, job_id: str, verb: str) -> JobRead:
        return self._http.read(JobRead, "POST", f"/v1/jobs/{job_id}/{verb}")


def _change(priority: int | None, labels: Mapping[str, str | None] | None) -> dict[str, Any]:
    return {"priority": priority, "labels": None if labels is None else dict(labels)}


def job_query(wanted: JobsWanted) -> dict[str, Any]:
    """Return what says in a query which jobs are meant."""
    lists = ("states", "labels", "failures")
    return {
        **{name: value for name, value in wanted.items() if name not in lists},
        "state": [str(state) for state in wanted.get("states", ())],
        "label": [f"{key}={value}" for key, value in (wanted.get("labels") or {}).items()],
        "failure": [str(failure) for failure in wanted.get("failures", ())],
    }


def _selection(ids: Sequence[str], wanted: JobsWanted) -> dict[str, Any]:
    if ids:
        return {"ids": list(ids)}
    where = {name: value for name, value in job_query(wanted).items() if value is not None and name != "label"}
    return {"where": {**where, "labels": dict(wanted.get("labels") or {})}}
