"""Jobs that look at the loss around another job's checkpoints: what they are made of."""

from sqlalchemy.orm import Session

from xsam.services.errors import InvalidRequestError
from xsam.services.jobs.models import KIND_STUDY, Job
from xsam.services.specs.job import JobSpec
from xsam.services.specs.plane import Plane

_OWN_FIELDS = ("plane", "name", "labels", "priority", "retry", "limits")
"""What such a job says of itself; all else is the trained job's."""


def filled(session: Session, spec: JobSpec, *, team: str) -> JobSpec:
    """Return the specification of a job that looks, with what the trained job says of model, data and optimizer.

    It runs in one process, with as much of a machine as one worker of the trained job, unless it says otherwise.

    Raises:
        InvalidRequestError: the trained job is not there, is another team's or trains in a way that can't be looked at.
    """
    if spec.plane is None:
        return spec
    trained = trained_by(session, spec.plane, team=team)
    own = {name: getattr(spec, name) for name in _OWN_FIELDS}
    if own["name"] is None:
        own["name"] = f"plane of {spec.plane.job}"
    is_told = "resources" in spec.model_fields_set
    resources = spec.resources if is_told else trained.resources.model_copy(update={"num_workers": 1})
    return trained.model_copy(update={**own, "resources": resources})


def trained_by(session: Session, plane: Plane, *, team: str) -> JobSpec:
    """Return the specification of the job that a plane is around.

    Raises:
        InvalidRequestError: as `filled`.
    """
    job = session.get(Job, plane.job)
    if job is None or job.team != team or job.kind == KIND_STUDY:
        raise _refused(plane, f"allowed are jobs of team {team} that train")
    trained = JobSpec.model_validate(job.spec)
    if trained.plane is not None:
        raise _refused(plane, f"which trains nothing itself; allowed is the job that it looks at, {trained.plane.job}")
    if trained.entrypoint is not None:
        raise _refused(plane, f"which runs {trained.entrypoint.file}; allowed are jobs of the service's own loop")
    return trained


def _refused(plane: Plane, why: str) -> InvalidRequestError:
    return InvalidRequestError(f"plane.job is {plane.job!r}, {why}", field="plane.job")
