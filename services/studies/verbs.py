"""What people tell a study: each call changes rows, which the study's runner, if one runs, notices within a second."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError
from sqlalchemy import select
from sqlalchemy.orm import Session

from xsam.services.errors import InvalidRequestError, InvalidTransitionError
from xsam.services.jobs import attempts, events, wishes
from xsam.services.jobs import service as jobs
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import TERMINAL_STATES, FailureKind, JobState
from xsam.services.jobs.verbs import changed
from xsam.services.settings import NO_CODE, AllowedCode
from xsam.services.studies import reading, trials
from xsam.services.studies import space as spaces
from xsam.services.studies.algorithms import GridSampler
from xsam.services.studies.limits import MAX_CONCURRENCY, MAX_TRIALS
from xsam.services.studies.models import Study, Trial
from xsam.services.studies.service import get, spec_of
from xsam.services.studies.spec import StudySpec, check_space, read_space
from xsam.services.studies.trials import PAUSE, STOP
from xsam.services.teams import limits
from xsam.services.teams.roles import Actor

STUDY_LABEL = "study"
"""Of a promoted job: which study it comes from."""


def pause(session: Session, study_id: str, *, actor: Actor) -> Job:
    """Start no new trials; the running ones finish, those that wait are held.

    Raises:
        NotFoundError: no such study.
        InvalidTransitionError: it has ended, or was told to stop.
    """
    job, study = _live(session, study_id, "paused")
    if study.hold == STOP:
        raise InvalidTransitionError(f"study {study_id} was told to stop; it can't be paused any more")
    study.hold = PAUSE
    _move_trials(session, study_id, JobState.QUEUED, JobState.PAUSED)
    _move_study(session, job, JobState.QUEUED, JobState.PAUSED)
    return _told(session, job, actor, "paused", "no new trials until it is resumed")


def resume(session: Session, study_id: str, *, actor: Actor) -> Job:
    """Go on after a pause.

    Raises:
        NotFoundError: no such study.
        InvalidTransitionError: it has ended, or was told to stop.
    """
    job, study = _live(session, study_id, "resumed")
    if study.hold == STOP:
        raise InvalidTransitionError(f"study {study_id} was told to stop; to go on, extend it once it has ended")
    study.hold = None
    _move_trials(session, study_id, JobState.PAUSED, JobState.QUEUED)
    _move_study(session, job, JobState.PAUSED, JobState.QUEUED)
    return _told(session, job, actor, "resumed", "goes on")


def stop(session: Session, study_id: str, *, actor: Actor) -> Job:
    """Let the running trials finish and end with the answer so far; waiting trials are cancelled.

    Raises:
        NotFoundError: no such study.
        InvalidTransitionError: it has ended.
    """
    job, study = _live(session, study_id, "stopped")
    study.hold = STOP
    for state in (JobState.QUEUED, JobState.PAUSED):
        _move_trials(session, study_id, state, JobState.CANCELLED)
    _move_study(session, job, JobState.PAUSED, JobState.QUEUED)
    return _told(session, job, actor, "stopping", "the running trials finish, then it ends")


def cancel(session: Session, study_id: str, *, actor: Actor) -> Job:
    """Cancel the study and all its trials; running ones end within seconds.

    Raises:
        NotFoundError: no such study.
        InvalidTransitionError: it has already ended otherwise.
    """
    get(session, study_id, lock=True)
    wishes.request_cancel(session, study_id, actor=actor.user)
    live = select(Job.id).join(Trial, Trial.job_id == Job.id)
    live = live.where(Trial.study_id == study_id, Job.state.not_in(TERMINAL_STATES))
    for job_id in session.scalars(live).all():
        wishes.request_cancel(session, job_id, actor=actor.user)
    return session.get_one(Job, study_id, populate_existing=True)


def retry_failed(session: Session, study_id: str, *, actor: Actor, kind: FailureKind | None = None) -> tuple[Job, int]:
    """Try failed trials again, with fresh budgets and from their checkpoints; return how many.

    Args:
        session: open in a unit of work.
        study_id: the study; one that has ended is taken up again.
        actor: who asks.
        kind: only trials that failed for this cause; by default all but diverged ones, which would diverge again.

    Raises:
        NotFoundError: no such study.
        InvalidTransitionError: it was cancelled.
        InfeasibleError: it has ended and its team is disabled.
    """
    job, study = get(session, study_id, lock=True)
    chosen = [
        trial.job_id
        for trial in trials.load(session, study_id)
        if trial.state is JobState.FAILED
        and (trial.failure_kind == kind if kind is not None else trial.failure_kind != FailureKind.DIVERGED)
    ]
    if not chosen:
        return job, 0
    _take_up(session, job, study)
    for job_id in chosen:
        wishes.retry(session, job_id, actor=actor.user)
    return _told(session, job, actor, "retried", f"{len(chosen)} failed trials are tried again"), len(chosen)


def extend(
    session: Session, study_id: str, *, actor: Actor, num_trials: int = 0, space: Mapping[str, Any] | None = None
) -> Job:
    """Add trials, or widen ranges, or both; a study that has ended is taken up again with all it knows.

    Args:
        session: open in a unit of work.
        study_id: the study.
        actor: who asks.
        num_trials: trials to add to the main search; control arms with a space of their own get as many.
        space: new dimensions for some of the searched fields, each holding every value of the one before.

    Raises:
        NotFoundError: no such study.
        InvalidRequestError: too many trials, or a dimension that is new, narrower or not valid.
        InvalidTransitionError: it was cancelled.
        InfeasibleError: it has ended and its team is disabled.
    """
    job, study = get(session, study_id, lock=True)
    spec = spec_of(job)
    if num_trials < 0 or num_trials % spec.seeds_per_config:
        raise InvalidRequestError(
            f"num_trials is {num_trials}; allowed are multiples of seeds_per_config, {spec.seeds_per_config}",
            field="num_trials",
        )
    if not num_trials and not space:
        raise InvalidRequestError("nothing to extend by: give num_trials, space or both", field="num_trials")
    added = num_trials // spec.seeds_per_config
    if (study.num_configs + added) * spec.seeds_per_config > MAX_TRIALS:
        raise InvalidRequestError(f"a study has at most {MAX_TRIALS} trials", field="num_trials")
    if space:
        study.space = _widened(study.space, space)
        _check_space(spec, study.space)
    study.num_configs += added
    if isinstance(spec.sampler, GridSampler):
        _check_grid(study, spec.sampler.points)
    study.revision += 1
    _take_up(session, job, study)
    return _told(session, job, actor, "extended", f"{num_trials} more trials" + (", wider space" if space else ""))


def set_concurrency(session: Session, study_id: str, concurrency: int, *, actor: Actor) -> Job:
    """Let more or fewer trials run at once; running ones are never interrupted for it.

    Raises:
        NotFoundError: no such study.
        InvalidRequestError: not between 1 and the limit.
        InvalidTransitionError: it has ended.
    """
    if not 1 <= concurrency <= MAX_CONCURRENCY:
        raise InvalidRequestError(
            f"concurrency is {concurrency}; allowed is 1 to {MAX_CONCURRENCY}", field="concurrency"
        )
    job, study = _live(session, study_id, "changed")
    study.concurrency = concurrency
    return _told(session, job, actor, "changed", f"{concurrency} trials at once")


def promote(
    session: Session,
    study_id: str,
    *,
    actor: Actor,
    number: int | None = None,
    changes: Mapping[str, Any] | None = None,
    allowed: AllowedCode = NO_CODE,
) -> Job:
    """Queue a study's best configuration, or one trial, as a job of its own that carries the study's id as a label.

    Args:
        session: open in a unit of work.
        study_id: the study.
        actor: whose job it becomes.
        number: of a trial; None for the best configuration.
        changes: a JSON merge patch on the job's specification, as for cloning a job.
        allowed: as for submitting a job.

    Raises:
        NotFoundError: no such study or trial.
        ConflictError: no trial has a value yet.
        InvalidRequestError: the changed job would not be valid; names the field.
        InfeasibleError: as for submitting a job.
    """
    best = reading.winning_job(session, study_id, number=number)
    spec = changed(best.model_dump(mode="json"), changes or {})
    spec = changed(spec.model_dump(mode="json"), {"labels": {STUDY_LABEL: study_id}})
    return jobs.submit(session, spec, actor=actor, allowed=allowed)[0]


def _check_space(spec: StudySpec, document: Mapping[str, Any]) -> None:
    """Refuse a widened space whose ends are not valid for the base job."""
    try:
        check_space(spec, read_space(document))
    except PydanticCustomError as e:
        context = e.context or {}
        raise InvalidRequestError(context["message"], field=context["field"]) from e


def _widened(before: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    try:
        new = read_space(given)
    except ValidationError as e:
        error = e.errors()[0]
        field = ".".join(["space", *map(str, error["loc"])])
        raise InvalidRequestError(f"{field}: {error['msg']}", field=field) from e
    old = read_space(before)
    for path, dimension in new.items():
        if path not in old:
            raise InvalidRequestError(
                f"{path} is not searched by this study; allowed are: {', '.join(old)}", field=f"space.{path}"
            )
        if not spaces.contains(dimension, old[path]):
            message = f"{path} must keep all values it had, {old[path].model_dump(mode='json')}"
            raise InvalidRequestError(message, field=f"space.{path}")
    return {**before, **{path: dimension.model_dump(mode="json") for path, dimension in new.items()}}


def _check_grid(study: Study, points: int) -> None:
    size = spaces.grid_size(read_space(study.space), points)
    if study.num_configs > size:
        message = f"the grid has {size} points, fewer than the {study.num_configs} configurations asked for"
        raise InvalidRequestError(f"{message}; widen a range", field="num_trials")


def _live(session: Session, study_id: str, done: str) -> tuple[Job, Study]:
    job, study = get(session, study_id, lock=True)
    if job.state in TERMINAL_STATES:
        raise InvalidTransitionError(f"study {study_id} is {job.state}; only a study that has not ended can be {done}")
    return job, study


def _take_up(session: Session, job: Job, study: Study) -> None:
    """Queue a study again that has ended. A study's end is an answer so far: the only row that ever leaves one."""
    if job.state == JobState.CANCELLED:
        raise InvalidTransitionError(f"study {job.id} was cancelled; submit it again instead")
    if study.hold == STOP and job.state in TERMINAL_STATES:
        study.hold = None
    if job.state not in TERMINAL_STATES:
        return
    limits.check_is_open(limits.row_of(session, job.team, holds=True))
    fresh = dict.fromkeys(("finished_at", "summary", "failure_kind", "failure_message"))
    attempts.move(session, job, JobState.QUEUED, **fresh)
    session.refresh(job)


def _move_trials(session: Session, study_id: str, old: JobState, new: JobState) -> None:
    own = Job.id.in_(select(Trial.job_id).where(Trial.study_id == study_id))
    for job_id in attempts.move_all(session, own, (old,), new):
        events.record(session, job_id, str(new), f"its study {study_id} was told so")


def _move_study(session: Session, job: Job, old: JobState, new: JobState) -> None:
    attempts.move_all(session, Job.id == job.id, (old,), new)


def _told(session: Session, job: Job, actor: Actor, kind: str, message: str) -> Job:
    session.flush()
    events.record(session, job.id, kind, message, actor=actor.user)
    session.refresh(job)
    return job
