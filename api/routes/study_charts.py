"""What charts of a study are drawn from; each answer has an `ETag`, and a caller that has it already gets 304."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import Header, Query, Response, status
from pydantic import BaseModel
from sqlalchemy.orm import Session

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


@router.route("GET", "/importances", "Read which fields matter")
def get_importances(study_id: StudyId, session: ReadSession) -> dict[str, float]:
    """Return each searched field's share of the objective's variation (PED-ANOVA); empty for too few trials."""
    return reading.read_plots(session, study_id).importances


@router.route("GET", "/plots", "Read the data of the usual plots", answers=_UNCHANGED, response_model=PlotsRead)
def get_plots(
    study_id: StudyId,
    session: ReadSession,
    response: Response,
    query: Annotated[PlotsQuery, Query()],
    if_none_match: IfNoneMatch = None,
) -> Any:
    """Return what history, parallel coordinates, slices, the map of two fields and importances are drawn from.

    Failed and cancelled trials are there, without a value. With `after`, only points that are newer.
    """
    after = instant_of(query.after, "after")
    return _unless_known(
        session,
        study_id,
        response,
        if_none_match,
        lambda: reading.read_plots(session, study_id, after=after, phases=query.phase or ("search",)),
    )


@router.route("GET", "/map", "Read a map of two fields", answers=_UNCHANGED, response_model=MapRead)
def get_map(
    study_id: StudyId,
    session: ReadSession,
    response: Response,
    query: Annotated[MapQuery, Query()],
    if_none_match: IfNoneMatch = None,
) -> Any:
    """Return what an arm's trials are worth, and what they cost, in each cell of any two searched fields."""
    wanted = query.model_dump()
    return _unless_known(
        session, study_id, response, if_none_match, lambda: reading.read_map(session, study_id, **wanted)
    )


@router.route("GET", "/curves", "Read trials' curves", answers=_UNCHANGED, response_model=CurvesRead)
def get_curves(
    study_id: StudyId,
    session: ReadSession,
    response: Response,
    query: Annotated[CurvesQuery, Query()],
    if_none_match: IfNoneMatch = None,
) -> Any:
    """Return the objective of the best trials, and of those that run, epoch by epoch over gradient evaluations."""
    wanted = query.model_dump()
    return _unless_known(
        session, study_id, response, if_none_match, lambda: curves.read_curves(session, study_id, **wanted)
    )


@router.route("GET", "/rungs", "Read the rungs of early stopping", answers=_UNCHANGED, response_model=RungsRead)
def get_rungs(study_id: StudyId, session: ReadSession, response: Response, if_none_match: IfNoneMatch = None) -> Any:
    """Return who reached which level of compute with what value, who was cut there, how well that foretold the end."""
    return _unless_known(session, study_id, response, if_none_match, lambda: rungs.read_rungs(session, study_id))


def _unless_known(
    session: Session, study_id: str, response: Response, known: str | None, read: Callable[[], _Model]
) -> _Model | Response:
    """Return what is read, unless the caller has it: the same answer of the same version."""
    tag = f'W/"{reading.version(session, study_id)}"'
    if known is not None and tag in (one.strip() for one in known.split(",")):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers={"ETag": tag})
    response.headers["ETag"] = tag
    response.headers["Cache-Control"] = "no-cache"  # ask each time, by the tag
    return read()
