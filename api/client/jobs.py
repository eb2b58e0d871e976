"""Changing jobs from Python, the line, the cluster and usage: the part of the client beside submitting and reading."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from xsam.api.client.http import Http
from xsam.services.cluster.schemas import ClusterRead
from xsam.services.jobs.schemas import AttemptRead, AttemptsRead, BulkRead, JobRead
from xsam.services.jobs.states import JobState
from xsam.services.reports.job_preview import JobPreview
from xsam.services.reports.schemas import QueueRead, WhyRead
from xsam.services.specs.job import JobSpec
from xsam.services.usage.schemas import UsageRead


class JobVerbs:
    """What changes jobs and explains them. Every method raises ApiError where the server refuses."""

    _http: Http

    def cancel(self, job_id: str) -> JobRead:
        """Cancel a job; one that runs is asked to stop and is returned with its wish."""
        return self._tell(job_id, "cancel")

    def pause(self, job_id: str) -> JobRead:
        """Hold a job; one that runs is asked to save its state and is returned with its wish."""
        return self._tell(job_id, "pause")

    def resume(self, job_id: str) -> JobRead:
        """Put a paused job back in the line."""
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
        headers = {"Idempotency-Key": idempotency_key or secrets.token_hex(16)}
        document = {"changes": dict(changes or {})}
        return self._http.read(JobRead, "POST", f"/v1/jobs/{job_id}/clone", json=document, headers=headers)

    def each(
        self,
        verb: str,
        *,
        ids: Sequence[str] = (),
        states: Sequence[JobState] = (),
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> BulkRead:
        """Do one of `cancel`, `pause`, `resume`, `retry` to several jobs: to those named, or all that match.

        Every job has its own result; one that is refused stops none of the others.
        """
        return self._http.read(BulkRead, "POST", f"/v1/jobs:{verb}", json=_selection(ids, states, name, labels))

    def update_each(
        self,
        *,
        priority: int | None = None,
        set_labels: Mapping[str, str | None] | None = None,
        ids: Sequence[str] = (),
        states: Sequence[JobState] = (),
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> BulkRead:
        """Change priority and labels of several jobs: of those named, or all that match."""
        document = {**_selection(ids, states, name, labels), "change": _change(priority, set_labels)}
        return self._http.read(BulkRead, "POST", "/v1/jobs:update", json=document)

    def preview(self, spec: JobSpec | Mapping[str, Any]) -> JobPreview:
        """Return what a job would take and where it would stand; nothing is queued."""
        document = spec.model_dump(mode="json") if isinstance(spec, JobSpec) else dict(spec)
        return self._http.read(JobPreview, "POST", "/v1/jobs:preview", json=document)

    def why(self, job_id: str) -> WhyRead:
        """Return why a job stands where it does."""
        return self._http.read(WhyRead, "GET", f"/v1/jobs/{job_id}/why")

    def attempts(self, job_id: str) -> Sequence[AttemptRead]:
        """Return the job's attempts, oldest first, with the tracebacks of failed ones."""
        return self._http.read(AttemptsRead, "GET", f"/v1/jobs/{job_id}/attempts").items

    def queue(self, *, after: int = 0, limit: int = 50) -> QueueRead:
        """Return a page of the line, in the order in which jobs would start."""
        return self._http.read(QueueRead, "GET", "/v1/queue", params={"after": after, "limit": limit})

    def cluster(self) -> ClusterRead:
        """Return the machines as last seen, and what runs where."""
        return self._http.read(ClusterRead, "GET", "/v1/cluster")

    def usage(self, *, since: date | None = None, until: date | None = None, team: str | None = None) -> UsageRead:
        """Return what was used on some days, by team and user; by default in the last 30 days."""
        days = {"since": since and since.isoformat(), "until": until and until.isoformat()}
        return self._http.read(UsageRead, "GET", "/v1/usage", params={**days, "team": team})

    def _tell(self, job_id: str, verb: str) -> JobRead:
        return self._http.read(JobRead, "POST", f"/v1/jobs/{job_id}/{verb}")


def _change(priority: int | None, labels: Mapping[str, str | None] | None) -> dict[str, Any]:
    return {"priority": priority, "labels": None if labels is None else dict(labels)}


def _selection(
    ids: Sequence[str], states: Sequence[JobState], name: str | None, labels: Mapping[str, str] | None
) -> dict[str, Any]:
    if ids:
        return {"ids": list(ids)}
    return {"where": {"state": [str(state) for state in states], "name": name, "labels": dict(labels or {})}}
