"""Checks of a job's own code before it is queued: asked for here, answered by a dispatcher within seconds."""

from typing import Annotated

from fastapi import Body

from xsam.api.examples import SUBMIT_EXAMPLES
from xsam.api.http.dependencies import AllowedCodeDep, PrincipalDep, ReadSession, WriteSession
from xsam.api.http.queries import CheckId
from xsam.api.http.router import Router
from xsam.services.checks import service as checks
from xsam.services.checks.schemas import CheckRead
from xsam.services.specs.job import JobSpec

router = Router("/v1/checks", "jobs")


@router.route("POST", "", "Check a job's code", refuses=("infeasible",))
def check_job(
    spec: Annotated[JobSpec, Body(openapi_examples=SUBMIT_EXAMPLES)],
    session: WriteSession,
    allowed: AllowedCodeDep,
    principal: PrincipalDep,
) -> CheckRead:
    """Have a job tried in a process of its own: imports, one batch forward and backward, one evaluated.

    Nothing is queued. The answer is read from the check, whose id comes back.
    """
    return CheckRead.model_validate(checks.submit(session, spec, actor=principal, allowed=allowed))


@router.route("GET", "/{check_id}", "Read a check")
def get_check(check_id: CheckId, session: ReadSession) -> CheckRead:
    """Return a check and, once there is one, its answer; kept for a day."""
    return CheckRead.model_validate(checks.get(session, check_id))
