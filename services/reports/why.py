"""Why a job stands where it does, in any state, and the queue it stands in; from rows only, so also with Ray down."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from xsam.services.cluster import service as cluster
from xsam.services.db.clock import db_now
from xsam.services.jobs.hints import hint
from xsam.services.jobs.models import Job
from xsam.services.jobs.service import get
from xsam.services.jobs.states import FailureKind, JobState, Wish
from xsam.services.reports.schemas import PromiseRead, QueueEntry, QueueRead, WhyRead
from xsam.services.scheduling import last_decision
from xsam.services.scheduling.last_decision import Decided
from xsam.services.scheduling.policy.reasons import Reason, ReasonCode, Request
from xsam.services.specs.job import JobSpec

NO_DISPATCHER = "no_dispatcher"
NOT_LOOKED_AT = "not_looked_at"
_SHOWN: tuple[Any, ...] = (
    Job.id,
    Job.name,
    Job.team,
    Job.submitted_by,
    Job.priority,
    Job.num_workers,
    Job.gpus_per_worker,
    Job.cpus_per_worker,
    Job.gpu_kind,
    Job.min_gpu_memory_gb,
    Job.node_labels,
    Job.state_since,
    Job.attempt,
)


def explain(session: Session, job_id: str, *, visible_team: str | None = None) -> WhyRead:
    """Return why a job waits, runs, is held, or how it ended.

    Args:
        session: open for reading.
        job_id: the job; whether the caller may ask about it is checked before.
        visible_team: the only team whose jobs the caller may identify; None for all.

    Raises:
        NotFoundError: no such job.
    """
    job = get(session, job_id)
    if job.state == JobState.QUEUED:
        now = session.execute(select(db_now())).scalar_one()
        decided = last_decision.decided_about(session, job)
        answer = _waits(job, now, decided, is_dispatched=bool(cluster.live_dispatchers(session)))
        if visible_team is None:
            return answer
        return _without_ids(answer, _of_others(session, answer.blocking_job_ids, visible_team))
    return _plain(job, job.state, _SENTENCES[JobState(job.state)](job))


def explain_queued(session: Session, waiting: Sequence[Job], visible_team: str | None = None) -> dict[str, WhyRead]:
    """Return why queued jobs wait, by id; arguments as for `explain`, one look at the last decision for all."""
    if not waiting:
        return {}
    now = session.execute(select(db_now())).scalar_one()
    decided = last_decision.decided_about_all(session, waiting)
    is_dispatched = bool(cluster.live_dispatchers(session))
    answers = {job.id: _waits(job, now, decided[job.id], is_dispatched=is_dispatched) for job in waiting}
    if visible_team is None:
        return answers
    blocking = {job_id for answer in answers.values() for job_id in answer.blocking_job_ids}
    hidden = _of_others(session, blocking, visible_team)
    return {job_id: _without_ids(answer, hidden) for job_id, answer in answers.items()}


def queue(session: Session, *, after: int = 0, limit: int = 100, visible_team: str | None = None) -> QueueRead:
    """Return a page of the queue, in order.

    Args:
        session: open for reading.
        after: position of the last job of the page before.
        limit: jobs per page.
        visible_team: the only team whose jobs the caller may identify; None for all.
    """
    line = last_decision.read_line(session, after=after, limit=limit)
    if line is None:
        return QueueRead(as_of=None, num_queued=last_decision.count_queued(session), items=[], next_position=None)
    ids = [job_id for _, job_id, _ in line.entries]
    rows = session.execute(select(*_SHOWN).where(Job.id.in_(ids), Job.state == JobState.QUEUED))
    jobs = {job.id: job for job in rows}
    items = [
        _entry(position, jobs[job_id], code, visible_team)
        for position, job_id, code in line.entries
        if job_id in jobs  # it may have left the queue since
    ]
    return QueueRead(
        as_of=line.planned_at,
        num_queued=line.num_queued,
        items=items,
        promises=_promises(session, visible_team),
        next_position=after + limit if line.has_more else None,
    )


def _promises(session: Session, visible_team: str | None) -> list[PromiseRead]:
    promised = last_decision.read_promises(session)
    query = select(Job.id, Job.name, Job.team).where(Job.id.in_([one.job_id for one in promised]))
    rows = {row.id: row for row in session.execute(query.where(Job.state == JobState.QUEUED))}
    found = []
    for one in promised:
        job = rows.get(one.job_id)
        if job is None:  # it has left the queue since
            continue
        is_visible = visible_team in (None, job.team)
        seen = {"job_id": job.id if is_visible else None, "name": job.name if is_visible else None}
        found.append(PromiseRead(**seen, team=job.team, node_ids=list(one.node_ids), starts_at=one.starts_at))
    return found


def _waits(job: Job, now: datetime, decided: Decided | None, *, is_dispatched: bool) -> WhyRead:
    if job.scheduled_at > now:
        sentence = f"Attempt {job.attempt + 1} may not start before {_instant(job.scheduled_at)}: it backs off."
        return _plain(job, ReasonCode.NOT_YET_ELIGIBLE, sentence, eligible_at=job.scheduled_at)
    as_of = None if decided is None else decided.planned_at
    if not is_dispatched:
        since = "none has ever decided" if as_of is None else f"the last decision is of {_instant(as_of)}"
        return _plain(
            job, NO_DISPATCHER, f"No dispatcher is running ({since}): nothing starts until one is.", as_of=as_of
        )
    if decided is None or decided.reason is None:
        sentence = (
            "The scheduler has not looked at it yet: it was queued after the last decision, or is far down the queue."
        )
        return _plain(job, NOT_LOOKED_AT, sentence, as_of=as_of)
    return _reasoned(job, decided.reason, decided.planned_at)


def _reasoned(job: Job, reason: Reason, as_of: datetime) -> WhyRead:
    return _plain(
        job,
        reason.code,
        reason.sentence(),
        as_of=as_of,
        position=reason.position,
        num_in_line=reason.num_in_line,
        shortage=reason.shortage,
        blocking_job_ids=list(reason.blocking_job_ids),
        holdings=list(reason.holdings),
        standing=reason.standing,
        estimated_start_at=reason.estimated_start_at,
        is_lower_bound=reason.is_lower_bound,
        eligible_at=job.scheduled_at,
    )


def _of_others(session: Session, job_ids: Collection[str], visible_team: str) -> dict[str, str]:
    """Return the teams of those of the jobs that are not this team's."""
    if not job_ids:
        return {}
    query = select(Job.id, Job.team).where(Job.id.in_(job_ids), Job.team != visible_team)
    return {row.id: row.team for row in session.execute(query)}


def _without_ids(answer: WhyRead, hidden: Mapping[str, str]) -> WhyRead:
    """Say of other teams' jobs in the way only whose they are."""
    sentence = answer.sentence
    for job_id in answer.blocking_job_ids:
        if job_id in hidden:
            sentence = sentence.replace(job_id, f"(of team {hidden[job_id]})")
    kept = [job_id for job_id in answer.blocking_job_ids if job_id not in hidden]
    return answer.model_copy(update={"sentence": sentence, "blocking_job_ids": kept})


def _plain(job: Job, code: str, sentence: str, **numbers: Any) -> WhyRead:
    state = JobState(job.state)
    return WhyRead(job_id=job.id, state=state, code=code, sentence=sentence, request=_request(job), **numbers)


def _entry(position: int, job: Any, code: str, visible_team: str | None) -> QueueEntry:
    is_visible = visible_team in (None, job.team)
    return QueueEntry(
        position=position,
        job_id=job.id if is_visible else None,
        name=job.name if is_visible else None,
        team=job.team,
        user=job.submitted_by if is_visible else None,
        priority=job.priority,
        request=_request(job),
        code=code,
        queued_since=job.state_since,
        attempt=job.attempt + 1,
    )


def _request(job: Any) -> Request:
    amounts = (job.num_workers, job.gpus_per_worker, job.cpus_per_worker)
    return Request(*amounts, job.gpu_kind or "", job.min_gpu_memory_gb or 0.0, job.node_labels or {})


def _running(job: Job) -> str:
    where = f" on {len(set(job.placement))} nodes" if job.placement and len(set(job.placement)) > 1 else ""
    base = f"Runs since {_instant(job.state_since)}{where}, attempt {job.attempt}: "
    base += f"{job.epochs_done} of {job.num_epochs} epochs are done."
    asked = {
        Wish.CANCEL: " It was asked to stop and ends within moments.",
        Wish.PAUSE: " It was asked to save its state and will be held.",
        Wish.PREEMPT: " It was asked to save its state and goes back to the queue.",
    }
    return base + _gpus(job) + (asked[Wish(job.wish)] if job.wish is not None else "")


def _gpus(job: Job) -> str:
    """Say what its GPUs do, as far as that is known."""
    said = ""
    if job.gpu_utilization is not None and job.gpu_seen_at is not None:
        gib = (job.gpu_used_bytes or 0) / 2**30
        at = _instant(job.gpu_seen_at)
        said = f" Its GPUs were used to {job.gpu_utilization:.0%} at {at}, with {gib:.1f} GiB of memory."
    if job.idle_warned_at is not None:
        said += f" Found idle at {_instant(job.idle_warned_at)}: its events say what follows."
    return said


def _paused(job: Job) -> str:
    since = _instant(job.state_since)
    if job.idle_paused_at is None:
        return f"Paused by a person since {since}: it waits until it is resumed."
    return f"Paused by the service since {since} because its GPUs were idle again: it waits until it is resumed."


def _succeeded(job: Job) -> str:
    return f"Succeeded at {_instant(job.state_since)}, in attempt {job.attempt}."


def _failed(job: Job) -> str:
    kind = FailureKind.of(job.failure_kind or FailureKind.INFRASTRUCTURE)
    advice = hint(kind, JobSpec.model_validate(job.spec))
    return f"Failed at {_instant(job.state_since)} ({kind}): {job.failure_message}. {advice}"


def _cancelled(job: Job) -> str:
    return f"Cancelled at {_instant(job.state_since)}; a retry queues it again."


_SENTENCES: dict[JobState, Callable[[Job], str]] = {
    JobState.RUNNING: _running,
    JobState.PAUSED: _paused,
    JobState.SUCCEEDED: _succeeded,
    JobState.FAILED: _failed,
    JobState.CANCELLED: _cancelled,
}


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
