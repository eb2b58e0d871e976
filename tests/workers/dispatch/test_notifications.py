"""The end of a job reaches a real HTTP server, which may fail first, on both databases."""

from typing import Any

import pytest
from sqlalchemy import select, update

from tests.support import jobs, studies
from tests.support.callers import make_team, make_webhook
from tests.support.receiver import Receiver, receiving
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.jobs import queue, verbs, wishes
from xsam.services.jobs.states import FailureKind
from xsam.services.notifications import outbox, sending
from xsam.services.notifications.models import Delivery, Webhook
from xsam.services.settings import NotificationSettings
from xsam.workers.dispatch import notifications
from xsam.workers.dispatch.notifications import NotificationRounds

ALLOWED = NotificationSettings(allowed_hosts=("127.0.0.1",), allow_private_addresses=True, timeout_s=5)


@pytest.fixture(autouse=True)
def _teams(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "LOOK_INTERVAL_S", 0.0)
    for team in ("red", "blue"):
        make_team(database, team)


def _round(database: Database, settings: NotificationSettings = ALLOWED) -> None:
    rounds = NotificationRounds(settings, database)
    rounds.begin()
    if rounds._thread is not None:
        rounds._thread.join()


def _deliveries(database: Database) -> list[Delivery]:
    with database.read() as session:
        return list(session.scalars(select(Delivery).order_by(Delivery.created_at, Delivery.id)))


def _let_backoff_pass(database: Database) -> None:
    with database.unit_of_work() as session:
        session.execute(update(Delivery).where(Delivery.next_at.is_not(None)).values(next_at=db_now(-1)))


def _complete(database: Database, **fields: Any) -> str:
    lease = jobs.submit_and_claim(database, **fields)
    with database.unit_of_work() as session:
        queue.complete(session, lease, summary={"best_value": 0.9})
    return lease.job_id


def test_end_of_a_job__arrives_signed_after_the_receiver_has_failed_twice(database: Database) -> None:
    with receiving(500, 503, 204) as receiver:
        webhook_id = make_webhook(database, "red", receiver.url)
        job_id = _complete(database, name="first")
        for _ in range(3):
            _round(database)
            _round(database)  # nothing is due before the pause is over
            _let_backoff_pass(database)
    assert len(receiver.received) == 3
    assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 1, "the receiver can tell a second try"
    with database.read() as session:
        secret = session.get_one(Webhook, webhook_id).secret
    for headers, body in receiver.received:
        made = sending.signature(secret, headers["webhook-id"], int(headers["webhook-timestamp"]), body)
        assert headers["webhook-signature"] == made
    payload = receiver.payloads[-1]
    assert payload["type"] == "job.succeeded"
    told = {"id": job_id, "name": "first", "team": "red", "submitted_by": "alice", "best_value": 0.9}
    assert told.items() <= payload["data"].items()
    (delivery,) = _deliveries(database)
    assert (delivery.num_tries, delivery.error, delivery.next_at) == (3, None, None)
    assert delivery.delivered_at is not None


def test_message__is_given_up_after_the_last_pause(database: Database) -> None:
    with receiving(500) as receiver:
        make_webhook(database, "red", receiver.url)
        _complete(database)
        for _ in range(len(outbox.BACKOFF_S) + 3):
            _round(database)
            _let_backoff_pass(database)
    (delivery,) = _deliveries(database)
    assert len(receiver.received) == delivery.num_tries == len(outbox.BACKOFF_S) + 1
    assert (delivery.next_at, delivery.delivered_at, delivery.error) == (None, None, "it answered 500")


def test_redirect__is_not_followed(database: Database) -> None:
    with receiving(302) as receiver:
        make_webhook(database, "red", receiver.url)
        _complete(database)
        _round(database)
    assert len(receiver.received) == 1
    assert _deliveries(database)[0].error == "it answered 302"


def test_private_address__is_not_spoken_to_unless_the_operator_allows_it(database: Database) -> None:
    with receiving(200) as receiver:
        make_webhook(database, "red", receiver.url)
        _complete(database)
        _round(database, NotificationSettings(allowed_hosts=("127.0.0.1",)))
    assert receiver.received == []
    assert _deliveries(database)[0].delivered_at is None


def test_every_end__is_told_once_and_nothing_else(database: Database) -> None:
    """Failed, retried, cancelled while it waits, cancelled while it runs; and a team tells its own only."""
    make_webhook(database, "red")
    make_webhook(database, "blue")
    failed = jobs.submit_and_claim(database)
    with database.unit_of_work() as session:
        queue.fail(session, failed, kind=FailureKind.USER, message="boom")
    moved = jobs.submit_and_claim(database)
    with database.unit_of_work() as session:
        queue.release(session, moved, outcome=FailureKind.PREEMPTED, message="moves")
    waiting = jobs.submit(database)
    with database.unit_of_work() as session:
        verbs.cancel(session, waiting, actor=jobs.ALICE)
    running = jobs.submit_and_claim(database)
    with database.unit_of_work() as session:
        wishes.request_cancel(session, running.job_id, actor="alice")
    with database.unit_of_work() as session:
        queue.finish_cancelled(session, running)
    told = {(one.payload["data"]["id"], one.payload["type"]) for one in _deliveries(database)}
    assert len(_deliveries(database)) == 3
    assert told == {
        (failed.job_id, "job.failed"),
        (waiting, "job.cancelled"),
        (running.job_id, "job.cancelled"),
    }


def test_study__is_told_of_as_a_whole(database: Database) -> None:
    make_webhook(database, "red", kinds=["study"])
    hand = studies.HandRunner.start(database, studies.submit(database))
    hand.run({"optimizer.rho": 0.1}, 0.5)
    _complete(database)
    hand.end()
    assert [one.payload["type"] for one in _deliveries(database)] == ["study.succeeded"]


def test_old_messages__are_forgotten_those_that_wait_are_not(database: Database) -> None:
    make_webhook(database, "red")
    for _ in range(2):
        _complete(database)
    first = _deliveries(database)[0]
    with database.unit_of_work() as session:
        outbox.note_delivered(session, first.id)
        session.execute(update(Delivery).values(created_at=db_now(-outbox.KEPT_S - 1)))
    NotificationRounds(ALLOWED, database).forget_old()
    assert [one.id for one in _deliveries(database)] != []
    assert first.id not in {one.id for one in _deliveries(database)}


def test_receiver__that_is_removed_gets_nothing_more(database: Database) -> None:
    receiver: Receiver
    with receiving(200) as receiver:
        webhook_id = make_webhook(database, "red", receiver.url)
        _complete(database)
        with database.unit_of_work() as session:
            session.delete(session.get_one(Webhook, webhook_id))
        _round(database)
    assert receiver.received == []
    assert _deliveries(database) == []
