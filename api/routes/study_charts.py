"""What charts of a study are drawn from; each answer has an `ETag`, and a caller that has it already gets 304."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Query, Response, status
from pydantic import BaseModel

from xsam.api.http.dependencies import ReadSession
from xsam.api.http.queries import Absent, CurvesQuery, MapQuery, PlotsQuery, StudyId
from xsam.api.http.router import Router
from xsam.services.jobs.bodies import instant_of
from xsam.services.studies import curves, reading, rungs
from xsam.services.studies.curves import CurvesRead
from xsam.services.studies.rungs import RungsRead
from xsam.services.studies.schemas import MapRead, PlotsRead

_Model = TypeVar("_Model", bound=BaseModel)
_UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "To `If-None-Match`: nothing has changed."}}

IfNoneMatch = Annotated[str | Absent, Header(include_in_schema=False)]

router = Router("/v1/studies/{study_id}", "studies")


class _Versioned:
    """A study, of which a caller may have the newest answer already."""

    def __init__(
        self, study_id: StudyId, session: ReadSession, response: Response, if_none_match: IfNoneMatch = None
    ) -> None:
        self._study_id = study_id
        self._session = session
        self._response = response
        self._known = if_none_match or ""

    def read(self, read: Callable[..., _Model], **wanted: Any) -> _Model | Response:
        """Return what is read, unless the caller has it: the same answer of the same version."""
        tag = f'W/"{reading.version(self._session, self._study_id)}"'
        if tag in (one.strip() for one in self._known.split(",")):
            return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers={"ETag": tag})
        self._response.headers["ETag"] = tag
        self._response.headers["Cache-Control"] = "no-cache"  # ask each time, by the tag
        return read(self._session, self._study_id, **wanted)


VersionedDep = Annotated[_Versioned, Depends()]


@router.route("GET", "/importances", "Read which fields matter")
def get_importances(study_id: StudyId, session: ReadSession) -> dict[str, float]:
    """Return each searched field's share of the objective's variation (PED-ANOVA); empty for too few trials."""
    return reading.read_plots(session, study_id).importances


@router.route("GET", "/plots", "Read the data of the usual plots", answers=_UNCHANGED, response_model=PlotsRead)
def get_plots(study: VersionedDep, query: Annotated[PlotsQuery, Query()]) -> Any:
    """Return what history, parallel coordinates, slices, the map of two fields and importances are drawn from.

    Failed and cancelled trials are there, without a value. With `after`, only points that are newer.
    """
    after = instant_of(query.after, "after")
    return study.read(reading.read_plots, after=after, phases=query.phase or ("search",))


@router.route("GET", "/map", "Read a map of two fields", answers=_UNCHANGED, response_model=MapRead)
def get_map(study: VersionedDep, query: Annotated[MapQuery, Query()]) -> Any:
    """Return what an arm's trials are worth, and what they cost, in each cell of any two searched fields."""
    return study.read(reading.read_map, **query.model_dump())


@router.route("GET", "/curves", "Read trials' curves", answers=_UNCHANGED, response_model=CurvesRead)
def get_curves(study: VersionedDep, query: Annotated[CurvesQuery, Query()]) -> Any:
    """Return the objective of the best trials, and of those that run, epoch by epoch over gradient evaluations."""
    return study.read(curves.read_curves, **query.model_dump())


@router.route("GET", "/rungs", "Read the rungs of early stopping", answers=_UNCHANGED, response_model=RungsRead)
def get_rungs(study: VersionedDep) -> Any:
    """Return who reached which level of compute with what value, who was cut there, how well that foretold the end."""
    return study.read(rungs.read_rungs)
