"""Studies from Python: `client.studies`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xsam.api.client.http import Http, document, once
from xsam.services.jobs.schemas import JobRead
from xsam.services.jobs.states import FailureKind, JobState
from xsam.services.studies.curves import CurvesRead
from xsam.services.studies.rungs import RungsRead
from xsam.services.studies.schemas import MapRead, PlotsRead, StudyPage, StudyPreview, StudyRead, TrialPage, TrialRead
from xsam.services.studies.spec import StudySpec

_ROOT = "/v1/studies"


class StudiesClient:
    """Submits, steers and reads studies.

    Every method raises ApiError where the server refuses: no such study, a state that does not allow it, a wrong field.

    Args:
        http: the client's connection.
    """

    def __init__(self, http: Http) -> None:
        self._http = http

    def submit(self, spec: StudySpec | Mapping[str, Any], *, idempotency_key: str | None = None) -> StudyRead:
        """Queue a study.

        Args:
            spec: the specification; a mapping is checked by the server. `{"preset": "rho"}` is a whole one.
            idempotency_key: names this submit; sent again, it returns the same study.
        """
        return self._http.read(StudyRead, "POST", _ROOT, json=document(spec), headers=once(idempotency_key))

    def preview(self, spec: StudySpec | Mapping[str, Any]) -> StudyPreview:
        """Return what a study would take; nothing is queued."""
        return self._http.read(StudyPreview, "POST", f"{_ROOT}:preview", json=document(spec))

    def get(self, study_id: str) -> StudyRead:
        """Return a study and what it says so far."""
        return self._http.read(StudyRead, "GET", f"{_ROOT}/{study_id}")

    def page(
        self,
        *,
        states: Sequence[JobState] = (),
        team: str | None = None,
        name: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> StudyPage:
        """Return one page of studies, newest first."""
        query = {"state": list(states), "team": team, "name": name, "cursor": cursor, "limit": limit}
        return self._http.read(StudyPage, "GET", _ROOT, params=query)

    def trial_page(  # noqa: PLR0913 - filters of a list
        self,
        study_id: str,
        *,
        states: Sequence[JobState] = (),
        arm: str | None = None,
        phase: str | None = None,
        ranges: Sequence[str] = (),
        sort: str = "number",
        cursor: str | None = None,
        limit: int = 50,
    ) -> TrialPage:
        """Return one page of a study's trials; a range is `optimizer.rho:0.01..0.1` or `value:0.9..`."""
        which = {"state": list(states), "arm": arm, "phase": phase, "range": list(ranges)}
        query = {**which, "sort": sort, "cursor": cursor, "limit": limit}
        return self._http.read(TrialPage, "GET", f"{_ROOT}/{study_id}/trials", params=query)

    def trials(self, study_id: str, *, phase: str | None = None, sort: str = "number") -> Iterator[TrialRead]:
        """Return all of a study's trials, reading page after page as they are asked for."""
        query = {"phase": phase, "sort": sort}
        return self._http.pages(TrialPage, f"{_ROOT}/{study_id}/trials", query, limit=500)

    def export(self, study_id: str, *, file_format: str = "csv") -> bytes:
        """Return all trials as a file, `csv` or `parquet`."""
        query = {"format": file_format}
        return self._http.send("GET", f"{_ROOT}/{study_id}/trials/export", params=query).content

    def plots(self, study_id: str, *, after: str | None = None, phases: Sequence[str] = ()) -> PlotsRead:
        """Return what the usual plots are drawn from; with `after` (an answer's `as_of`), only newer points."""
        query = {"after": after, "phase": list(phases)}
        return self._http.read(PlotsRead, "GET", f"{_ROOT}/{study_id}/plots", params=query)

    def map(
        self,
        study_id: str,
        *,
        across: str | None = None,
        down: str | None = None,
        stat: str = "best",
        arm: str | None = None,
    ) -> MapRead:
        """Return what trials are worth, and cost, over two searched fields; `stat` is `best`, `mean` or `count`."""
        query = {"across": across, "down": down, "stat": stat, "arm": arm}
        return self._http.read(MapRead, "GET", f"{_ROOT}/{study_id}/map", params=query)

    def curves(
        self,
        study_id: str,
        *,
        top: int = 20,
        arm: str | None = None,
        phase: str | None = None,
        points: int | None = None,
    ) -> CurvesRead:
        """Return the objective of the best configurations' trials epoch by epoch, over gradient evaluations."""
        query = {"top": top, "arm": arm, "phase": phase, "points": points}
        return self._http.read(CurvesRead, "GET", f"{_ROOT}/{study_id}/curves", params=query)

    def rungs(self, study_id: str) -> RungsRead:
        """Return the rungs of early stopping: levels, values, cuts."""
        return self._http.read(RungsRead, "GET", f"{_ROOT}/{study_id}/rungs")

    def importances(self, study_id: str) -> dict[str, float]:
        """Return how much each searched field matters."""
        found: dict[str, float] = self._http.send("GET", f"{_ROOT}/{study_id}/importances").json()
        return found

    def pause(self, study_id: str) -> StudyRead:
        """Start no new trials; the running ones finish."""
        return self._tell(study_id, "pause")

    def resume(self, study_id: str) -> StudyRead:
        """Go on after a pause."""
        return self._tell(study_id, "resume")

    def stop(self, study_id: str) -> StudyRead:
        """Let the running trials finish, then end with the answer so far."""
        return self._tell(study_id, "stop")

    def cancel(self, study_id: str) -> StudyRead:
        """Cancel a study and all its trials."""
        return self._tell(study_id, "cancel")

    def retry_failed(self, study_id: str, *, kind: FailureKind | None = None) -> StudyRead:
        """Try failed trials again; by default all but those that diverged."""
        return self._tell(study_id, "retry-failed", {"kind": kind})

    def extend(self, study_id: str, *, num_trials: int = 0, space: Mapping[str, Any] | None = None) -> StudyRead:
        """Add trials or widen ranges, also after the end."""
        return self._tell(study_id, "extend", {"num_trials": num_trials, "space": dict(space or {})})

    def set_concurrency(self, study_id: str, concurrency: int) -> StudyRead:
        """Let more or fewer trials run at once."""
        return self._http.read(StudyRead, "PATCH", f"{_ROOT}/{study_id}", json={"concurrency": concurrency})

    def promote(self, study_id: str, *, trial: int | None = None, changes: Mapping[str, Any] | None = None) -> JobRead:
        """Queue the best configuration, or one trial, as a job of its own, with changes such as more epochs."""
        wanted = {"trial": trial, "changes": dict(changes or {})}
        return self._http.read(JobRead, "POST", f"{_ROOT}/{study_id}/promote", json=wanted)

    def _tell(self, study_id: str, verb: str, body: Mapping[str, Any] | None = None) -> StudyRead:
        options = {} if body is None else {"json": body}
        return self._http.read(StudyRead, "POST", f"{_ROOT}/{study_id}/{verb}", **options)
