"""Requirements of jobs' own code: locked by a dispatcher within seconds, then named by jobs."""

from typing import Annotated

from fastapi import Body

from xsam.api.http.dependencies import AllowedCodeDep, PrincipalDep, ReadSession, WriteSession
from xsam.api.http.queries import RequirementsId
from xsam.api.http.router import Router
from xsam.services.requirements import service as requirements
from xsam.services.requirements.schemas import RequirementsCreate, RequirementsRead

router = Router("/v1/requirements", "bundles")


@router.route("POST", "", "Lock requirements")
def lock_requirements(
    given: Annotated[RequirementsCreate, Body()],
    session: WriteSession,
    allowed: AllowedCodeDep,
    principal: PrincipalDep,
) -> RequirementsRead:
    """Have the lines of a requirements.txt resolved beside the service's environment, whose packages stay as they are.

    The answer is read from the requirements, whose id comes back; a job names its `lock_id`. The team's own of the same
    text, if less than a day old, comes back as it is.
    """
    return RequirementsRead.model_validate(requirements.submit(session, given.text, actor=principal, allowed=allowed))


@router.route("GET", "/{requirements_id}", "Read requirements")
def get_requirements(requirements_id: RequirementsId, session: ReadSession) -> RequirementsRead:
    """Return requirements and, once there is one, their lock."""
    return RequirementsRead.model_validate(requirements.get(session, requirements_id))
