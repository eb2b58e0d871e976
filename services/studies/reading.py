"""Everything the API reads of studies, as the documents it answers with."""

from collections.abc import Iterator, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from xsam.services.errors import ConflictError, NotFoundError
from xsam.services.jobs.models import Job
from xsam.services.jobs.service import JobFilter
from xsam.services.jobs.states import JobState
from xsam.services.specs.job import JobSpec
from xsam.services.studies import answers, pages, service, views
from xsam.services.studies.arms import arms_of, job_spec
from xsam.services.studies.models import Study, Trial
from xsam.services.studies.pages import TrialFilter, TrialSort
from xsam.services.studies.schemas import StudyBrief, StudyPage, StudyRead, TrialPage, TrialRead
from xsam.services.studies.service import spec_of
from xsam.services.studies.spec import read_space
from xsam.services.studies.trials import SEARCH

_EXPORT_PAGE = 1_000


def read_study(session: Session, study_id: str) -> StudyRead:
    """Return a study and what it says so far.

    Raises:
        NotFoundError: no such study.
    """
    job, study = service.get(session, study_id)
    return answers.answer(session, job, study)


def list_studies(session: Session, *, where: JobFilter, cursor: str | None, limit: int) -> StudyPage:
    """Return a page of studies, newest first.

    Raises:
        InvalidRequestError: the cursor is not one of ours.
    """
    page, next_cursor = service.list_studies(session, where=where, cursor=cursor, limit=limit)
    counts = _counts(session, [job.id for job, _ in page])
    return StudyPage(items=[_brief(session, job, study, counts) for job, study in page], next_cursor=next_cursor)


def read_trials(
    session: Session, study_id: str, *, where: TrialFilter, sort: TrialSort, cursor: str | None, limit: int
) -> TrialPage:
    """Return a page of a study's trials.

    Raises:
        NotFoundError: no such study.
        InvalidRequestError: the cursor is not one of this order's.
    """
    job, _ = service.get(session, study_id)
    objective = spec_of(job).objective
    return pages.page(session, study_id, objective, where=where, sort=sort, cursor=cursor, limit=limit)


def all_trials(session: Session, study_id: str, *, where: TrialFilter, sort: TrialSort) -> list[TrialRead]:
    """Return all of a study's trials that match, for an export.

    Raises:
        NotFoundError: no such study.
    """
    return list(_every_trial(session, study_id, where, sort))


def read_plots(session: Session, study_id: str) -> views.PlotsRead:
    """Return the data of a study's plots.

    Raises:
        NotFoundError: no such study.
    """
    job, study = service.get(session, study_id)
    spec = spec_of(job)
    columns = (Trial.number, Trial.arm, Trial.params, Trial.value, Trial.grad_evals)
    query = select(*columns).where(Trial.study_id == study_id, Trial.phase == SEARCH, Trial.value.is_not(None))
    measured = [
        views.Measured(number=row.number, arm=row.arm, params=row.params, value=row.value, grad_evals=row.grad_evals)
        for row in session.execute(query.order_by(Trial.number))
    ]
    return views.plots(read_space(study.space), spec.objective.mode, spec.base.optimizer.variant, measured)


def winning_job(session: Session, study_id: str, *, number: int | None = None) -> JobSpec:
    """Return the job of a study's best configuration, or of one trial: its values in the base job, with its seed.

    Raises:
        NotFoundError: no such study or trial.
        ConflictError: no trial has a value yet.
    """
    job, study = service.get(session, study_id)
    spec = spec_of(job)
    if number is not None:
        trial = session.scalar(select(Trial).where(Trial.study_id == study_id, Trial.number == number))
        if trial is None:
            raise NotFoundError(f"study {study_id} has no trial {number}", field="trial")
        arm_name, point, seed = trial.arm, trial.params, trial.seed
    else:
        best = answers.winner(session, job)
        if best is None:
            raise ConflictError(f"study {study_id} has no trial with a value yet; there is nothing to promote")
        arm_name, point, seed = best.arm, best.point, spec.base.seed
    arms = arms_of(spec, space=read_space(study.space), num_configs=study.num_configs)
    arm = next(arm for arm in arms if arm.name == arm_name)
    # The whole run, not the share of compute that a trial had.
    return job_spec(spec.model_copy(update={"compute": "epochs"}), arm, point, seed)


def _every_trial(session: Session, study_id: str, where: TrialFilter, sort: TrialSort) -> Iterator[TrialRead]:
    cursor = None
    while True:
        page = read_trials(session, study_id, where=where, sort=sort, cursor=cursor, limit=_EXPORT_PAGE)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def _counts(session: Session, study_ids: Sequence[str]) -> dict[str, dict[JobState, int]]:
    query = (
        select(Trial.study_id, Job.state, func.count())
        .join(Job, Job.id == Trial.job_id)
        .where(Trial.study_id.in_(study_ids))
        .group_by(Trial.study_id, Job.state)
    )
    counts: dict[str, dict[JobState, int]] = {}
    for study_id, state, num in session.execute(query):
        counts.setdefault(study_id, {})[JobState(state)] = num
    return counts


def _brief(session: Session, job: Job, study: Study, counts: dict[str, dict[JobState, int]]) -> StudyBrief:
    best = func.max(Trial.value) if spec_of(job).objective.mode == "max" else func.min(Trial.value)
    return StudyBrief(
        id=job.id,
        name=job.name,
        team=job.team,
        submitted_by=job.submitted_by,
        state=JobState(job.state),
        hold=study.hold,
        created_at=job.created_at,
        finished_at=job.finished_at,
        num_by_state=counts.get(job.id, {}),
        best_value=session.scalar(select(best).where(Trial.study_id == job.id, Trial.phase == SEARCH)),
    )
