"""GPUs that do nothing: who is warned, what follows, and what counts as busy. Time is moved in SQL."""

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from tests.support import jobs
from tests.support.callers import make_team, make_webhook
from xsam.services.db.clock import utc_now
from xsam.services.db.session import Database
from xsam.services.jobs import idle, queue, wishes
from xsam.services.jobs.models import KIND_TRIAL, Job, JobEvent
from xsam.services.jobs.queue import Lease
from xsam.services.jobs.service import get
from xsam.services.jobs.states import FailureKind, JobState, Wish
from xsam.services.notifications.models import Delivery
from xsam.services.reports import attention, gauges, why
from xsam.services.settings import IdleSettings
from xsam.services.teams.models import Team
from xsam.services.teams.roles import Principal, Role

GIB = 2**30
ASKER = Principal(jobs.ALICE.user, jobs.ALICE.team, Role.MEMBER)
REQUEUE = IdleSettings(then="requeue", after_s=600, grace_s=300)


def _start(database: Database, gpus: float = 1.0) -> Lease:
    return jobs.submit_and_claim(database, resources={"gpus_per_worker": gpus})


def _again(database: Database, lease: Lease) -> Lease:
    """End the attempt as its runner does when it was asked to leave, and start the next one."""
    with database.unit_of_work() as session:
        queue.release(session, lease, outcome=FailureKind.PREEMPTED, message="asked to")
    return jobs.claim(database, lease.job_id)


def _waste(database: Database, lease: Lease, *, used_s: float = 0.0) -> None:
    """Let an attempt use its GPUs for so long, then nothing for longer than allowed, warning included."""
    _age(database, lease, state_since=2000 + used_s, reported_at=2000)
    _look(database)
    _age(database, lease, idle_warned_at=301)
    _look(database)


def _age(database: Database, lease: Lease, **ages_s: float) -> None:
    """Move instants of the job's row into the past."""
    values = {name: utc_now() - timedelta(seconds=age_s) for name, age_s in ages_s.items()}
    with database.unit_of_work() as session:
        session.execute(update(Job).where(Job.id == lease.job_id).values(values))


def _note(database: Database, lease: Lease, utilization: float, busiest: float | None = None) -> None:
    most = utilization if busiest is None else busiest
    with database.unit_of_work() as session:
        idle.note_use(session, lease, utilization=utilization, busiest=most, used_bytes=4 * GIB, total_bytes=80 * GIB)


def _look(database: Database, usual: IdleSettings = REQUEUE) -> list[str]:
    with database.read() as session:
        found = idle.look(session, usual)
    for job_id in found:
        with database.unit_of_work() as session:
            idle.act(session, job_id, usual)
    return found


def _kinds(database: Database, lease: Lease) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(JobEvent.kind).where(JobEvent.job_id == lease.job_id).order_by(JobEvent.id)))


def _wish(database: Database, lease: Lease) -> str | None:
    with database.read() as session:
        return get(session, lease.job_id).wish


def test_without_figures__progress_counts_and_it_is_warned_then_sent_back_to_the_queue(database: Database) -> None:
    lease = _start(database)
    make_team(database, jobs.ALICE.team)
    make_webhook(database, jobs.ALICE.team)
    assert _look(database) == []
    _age(database, lease, state_since=700, reported_at=650)
    assert _look(database) == [lease.job_id]
    assert _look(database) == [], "it has been warned, and its time is not over"
    with database.read() as session:
        (told,) = session.scalars(select(Delivery.payload)).all()
        assert (told["type"], told["data"]["id"]) == ("job.idle", lease.job_id)
        assert "Found idle at" in why.explain(session, lease.job_id).sentence
        shown = attention.attention(session, ASKER, max_silence_s=3600)
        assert [one.id for one in shown.idle] == [lease.job_id]
        assert [(one.num_idle, one.idle_gpus) for one in gauges.read(session).jobs] == [(1, 1.0)]
    assert _wish(database, lease) is None
    _age(database, lease, idle_warned_at=301)
    assert _look(database) == [lease.job_id]
    assert _wish(database, lease) == Wish.PREEMPT
    assert _look(database) == []
    assert _kinds(database, lease)[-2:] == ["idle", "preempting"]


def test_progress_after_the_warning__takes_it_back(database: Database) -> None:
    lease = _start(database)
    _age(database, lease, state_since=700, reported_at=650)
    _look(database)
    _age(database, lease, reported_at=0, idle_warned_at=301)
    assert _look(database) == [lease.job_id]
    assert _kinds(database, lease)[-1] == "busy_again"
    assert _wish(database, lease) is None


def test_measured_gpus__count_before_progress_both_ways(database: Database) -> None:
    busy, idle_one = _start(database), _start(database)
    _age(database, busy, state_since=2000, reported_at=1900)
    _age(database, idle_one, state_since=2000, reported_at=0)
    _note(database, busy, 0.9)
    _note(database, idle_one, 0.01)
    assert _look(database) == [idle_one.job_id], "a loop that reports epochs from the CPU holds its GPU in vain"
    with database.read() as session:
        assert "used to 90%" in why.explain(session, busy.job_id).sentence.replace(" %", "%")
        (team,) = gauges.read(session).jobs
        assert team.utilization == pytest.approx(0.455)
        assert team.gpu_used_bytes == 8 * GIB


def test_figures_that_stopped_coming__are_not_believed(database: Database) -> None:
    lease = _start(database)
    _note(database, lease, 0.0)
    _age(database, lease, state_since=2000, gpu_seen_at=idle.MEASURED_WITHIN_S + 1, reported_at=0)
    assert _look(database) == []


def test_figures_of_an_attempt_before__say_nothing(database: Database) -> None:
    lease = _start(database)
    _age(database, lease, gpu_seen_at=60, gpu_busy_at=5000, idle_warned_at=4000, state_since=5, reported_at=0)
    assert _look(database) == []


def test_measurement__is_no_progress_and_needs_the_lease(database: Database) -> None:
    lease = _start(database)
    _age(database, lease, reported_at=500)
    _note(database, lease, 0.5)
    _note(database, Lease(lease.job_id, "another", 1), 0.7)
    with database.read() as session:
        job = get(session, lease.job_id)
        assert job.gpu_utilization == 0.5
        assert job.reported_at is not None
        assert utc_now() - job.reported_at > timedelta(seconds=499)


@pytest.mark.parametrize("gpus", [0, 0.5])
def test_job_without_gpus__is_never_idle(database: Database, gpus: float) -> None:
    lease = _start(database, gpus)
    _age(database, lease, state_since=2000, reported_at=2000)
    assert _look(database) == ([lease.job_id] if gpus else [])


def test_team__has_its_own_way_and_without_any_nothing_is_done(database: Database) -> None:
    lease = _start(database)
    _age(database, lease, state_since=2000, reported_at=2000)
    assert _look(database, IdleSettings()) == []
    make_team(database, jobs.ALICE.team)
    with database.unit_of_work() as session:
        session.get_one(Team, jobs.ALICE.team).idle = {"then": "end", "grace_s": 0}
    assert _look(database, IdleSettings()) == [lease.job_id]
    assert _look(database, IdleSettings()) == [lease.job_id]
    assert _wish(database, lease) == Wish.CANCEL
    assert _kinds(database, lease)[-3:] == ["idle", "idle_ended", "cancel_requested"]
    with database.unit_of_work() as session:
        session.get_one(Team, jobs.ALICE.team).idle = {"then": "nothing"}
    assert _look(database, REQUEUE) == []


def test_job_that_was_asked_to_leave__is_left_alone_and_forgets_all_when_it_has(database: Database) -> None:
    lease = _start(database)
    _note(database, lease, 0.0)
    _age(database, lease, state_since=2000, reported_at=2000)
    _look(database)
    with database.unit_of_work() as session:
        wishes.request_pause(session, lease.job_id, actor="ann")
    _age(database, lease, idle_warned_at=4000)
    assert _look(database) == []
    with database.unit_of_work() as session:
        queue.release(session, lease, outcome=FailureKind.PREEMPTED, message="paused")
    with database.read() as session:
        job = get(session, lease.job_id)
        assert (job.state, job.idle_warned_at, job.gpu_utilization) == (JobState.PAUSED, None, None)


def test_one_gpu_of_many_that_works__keeps_the_job(database: Database) -> None:
    lease = _start(database)
    _age(database, lease, state_since=2000, reported_at=1900)
    _note(database, lease, 0.04, busiest=0.32)
    assert _look(database) == []


def test_job_that_is_idle_again_and_again__is_paused_with_the_reason_until_it_is_resumed(database: Database) -> None:
    policy = REQUEUE.model_copy(update={"max_requeues": 2})
    make_team(database, jobs.ALICE.team)
    with database.unit_of_work() as session:
        session.get_one(Team, jobs.ALICE.team).idle = {"max_requeues": policy.max_requeues}
    lease = _start(database)
    for number in (1, 2):
        _waste(database, lease)
        assert _wish(database, lease) == Wish.PREEMPT
        lease = _again(database, lease)
        assert jobs.read(database, lease.job_id).idle_requeues == number
    _waste(database, lease)
    assert _wish(database, lease) == Wish.PAUSE
    assert _kinds(database, lease)[-3:] == ["idle", "idle_paused", "pause_requested"]
    with database.read() as session:
        assert attention.attention(session, ASKER, max_silence_s=3600).idle_paused == [], "it has not left yet"
    with database.unit_of_work() as session:
        queue.release(session, lease, outcome=FailureKind.PREEMPTED, message="paused")
    with database.read() as session:
        assert "because its GPUs were idle again" in why.explain(session, lease.job_id).sentence
        shown = attention.attention(session, ASKER, max_silence_s=3600)
        assert shown.is_needed
        assert [one.id for one in shown.idle_paused] == [lease.job_id]
        said = session.scalars(select(JobEvent.message).where(JobEvent.kind == "idle_paused")).one()
    assert "it was sent back 2 times in a row" in said
    with database.unit_of_work() as session:
        wishes.resume(session, lease.job_id, actor="ann")
    job = jobs.read(database, lease.job_id)
    assert (job.state, job.idle_requeues, job.idle_paused_at) == (JobState.QUEUED, 0, None)
    lease = jobs.claim(database, lease.job_id)
    _waste(database, lease)
    assert _wish(database, lease) == Wish.PREEMPT, "it counts anew"


def test_attempt_that_used_its_gpus__begins_the_count_anew_and_a_short_one_does_not(database: Database) -> None:
    lease = _start(database)
    for used_s, counted in ((0, 1), (599, 2), (601, 1)):
        _waste(database, lease, used_s=used_s)
        assert jobs.read(database, lease.job_id).idle_requeues == counted, used_s
        lease = _again(database, lease)


def test_pause_that_somebody_withdraws__is_forgotten(database: Database) -> None:
    make_team(database, jobs.ALICE.team)
    with database.unit_of_work() as session:
        session.get_one(Team, jobs.ALICE.team).idle = {"max_requeues": 0}
    lease = _start(database)
    _waste(database, lease)
    assert _wish(database, lease) == Wish.PAUSE, "it is never sent back"
    with database.unit_of_work() as session:
        wishes.resume(session, lease.job_id, actor="ann")
        wishes.request_pause(session, lease.job_id, actor="ann")
    with database.unit_of_work() as session:
        queue.release(session, lease, outcome=FailureKind.PREEMPTED, message="paused")
    with database.read() as session:
        assert "Paused by a person" in why.explain(session, lease.job_id).sentence


def test_trial__is_ended_where_a_job_would_be_paused(database: Database) -> None:
    """Its study could not end while it is paused."""
    lease = _start(database)
    with database.unit_of_work() as session:
        session.execute(update(Job).where(Job.id == lease.job_id).values(kind=KIND_TRIAL, idle_requeues=3))
    _waste(database, lease)
    assert _wish(database, lease) == Wish.CANCEL
    assert _kinds(database, lease)[-3:] == ["idle", "idle_ended", "cancel_requested"]


def test_job_that_is_retried__counts_anew(database: Database) -> None:
    lease = _start(database)
    _waste(database, lease)
    with database.unit_of_work() as session:
        queue.fail(session, lease, kind=FailureKind.USER, message="broken")
        wishes.retry(session, lease.job_id, actor="ann")
    assert jobs.read(database, lease.job_id).idle_requeues == 0
