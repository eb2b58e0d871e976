"""Query parameters of the study routes."""

from enum import StrEnum
from typing import Annotated

from fastapi import Path
from pydantic import Field

from xsam.api.http.queries import Absent, JobsQuery, Text, _Query
from xsam.services.jobs.states import JobState
from xsam.services.studies.pages import TrialFilter, TrialSort
from xsam.services.studies.service import StudyFilter

StudyId = Annotated[str, Path(pattern=r"^[a-z0-9]{1,32}$", description="The study's id.", examples=["k7m2p9xw4q3t"])]


class ExportFormat(StrEnum):
    """Files of all trials."""

    CSV = "csv"
    PARQUET = "parquet"


class StudiesQuery(JobsQuery):
    """Which studies to list."""

    def as_study_filter(self) -> StudyFilter:
        """Return the filter that the service understands.

        Raises:
            InvalidRequestError: one label is asked for twice with different values.
        """
        where = self.as_filter()
        return StudyFilter(states=where.states, team=where.team, name=where.name, labels=where.labels)


class _TrialsWanted(_Query):
    state: Annotated[list[JobState], Field(default_factory=list)]
    """Trials in any of these states; repeat the parameter for several."""
    arm: Text | Absent = None
    """Trials of this optimizer."""
    phase: Text | Absent = None
    """`search` or `confirm`."""
    stopped_early: bool | Absent = None
    """Trials that the early stopper ended, or the others."""
    sort: TrialSort = TrialSort.NUMBER
    """Order; a minus descends. Trials without a value come last in either."""

    def as_filter(self) -> TrialFilter:
        """Return the filter that the service understands."""
        return TrialFilter(states=self.state, arm=self.arm, phase=self.phase, stopped_early=self.stopped_early)


class TrialsQuery(_TrialsWanted):
    """Which trials to list."""

    cursor: Annotated[str | Absent, Field(max_length=500)] = None
    """`next_cursor` of the page before, made with the same `sort`."""
    limit: Annotated[int, Field(ge=1, le=500)] = 50
    """Trials per page."""


class ExportQuery(_TrialsWanted):
    """Which trials to export, and how."""

    format: ExportFormat = ExportFormat.CSV
    """The file's format."""
