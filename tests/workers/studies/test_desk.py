"""Trials, Tune's relays and verdicts meet, in real threads."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.workers.studies.test_early_stopping import epochs
from xsam.workers.studies import desk as desk_module
from xsam.workers.studies.desk import Delivery, Desk


@pytest.fixture
def relays() -> Iterator[ThreadPoolExecutor]:
    """Where relays wait; whoever still waits at the end of a test is let go by `Desk.close`."""
    with ThreadPoolExecutor() as pool:
        yield pool


def given(*trial_ids: str) -> Desk:
    """A desk of a plain study whose trials Tune has."""
    desk = Desk(is_judged=False)
    for trial_id in trial_ids:
        desk.open(trial_id)
        desk.expect_relay(trial_id)
    return desk


def waits(call: Future[Delivery]) -> bool:
    try:
        call.result(timeout=0.2)
    except TimeoutError:
        return True
    return False


def test_end__is_held_back_while_another_relay_starts(relays: ThreadPoolExecutor):
    desk = given("a", "b")
    desk.finish("a")
    end = relays.submit(desk.next_delivery, "a")
    assert waits(end)
    relays.submit(desk.next_delivery, "b")
    assert end.result(timeout=5).is_over
    desk.close()


def test_end__does_not_wait_for_ever_for_a_relay_that_never_comes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(desk_module, "RELAY_STARTS_WITHIN_S", 0.0)
    desk = given("a", "b")
    desk.finish("a")
    assert desk.next_delivery("a").is_over


def end_beside_a_free_relay(relays: ThreadPoolExecutor, *, waiting: str) -> tuple[Desk, Future[Delivery]]:
    """A desk with one free relay and trials that wait; and the call of its other relay, whose trial is just over."""
    desk = given("a", "b")
    ends = [relays.submit(desk.next_delivery, name) for name in ("a", "b")]
    for trial_id in waiting:
        desk.open(trial_id)
    desk.finish("a")
    assert ends[0].result(timeout=5).is_over
    desk.finish("b")
    return desk, ends[1]


def test_end__is_held_back_while_a_free_relay_has_a_trial_to_take(relays: ThreadPoolExecutor):
    desk, end = end_beside_a_free_relay(relays, waiting="cd")
    assert waits(end)
    desk.expect_relay("c")
    relays.submit(desk.next_delivery, "c")
    assert end.result(timeout=5).is_over
    desk.close()


def test_end__is_not_held_back_for_a_trial_that_tune_is_given_only_after_it(relays: ThreadPoolExecutor):
    """The last trial a budget pays for: one is live, and Tune has one whose end it has not seen."""
    desk, end = end_beside_a_free_relay(relays, waiting="c")
    assert end.result(timeout=5).is_over
    desk.close()


def test_end__does_not_wait_for_ever_for_a_free_relay_that_takes_nothing(
    relays: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(desk_module, "RELAY_STARTS_WITHIN_S", 0.5)
    desk, end = end_beside_a_free_relay(relays, waiting="cd")
    assert end.result(timeout=5).is_over
    desk.close()


def test_relay_of_a_judged_study__gets_every_epoch_then_the_end():
    desk = Desk(is_judged=True)
    desk.open("t")
    for record in epochs([0.1, 0.2]):
        desk.report("t", record)
    assert desk.next_delivery("t") == Delivery(1, is_over=False)
    assert desk.next_delivery("t") == Delivery(1, is_over=False)  # the relay that had it has died
    desk.judge("t", 1, is_stopped=False)
    assert desk.next_delivery("t") == Delivery(2, is_over=False)
    desk.judge("t", 2, is_stopped=False)
    desk.finish("t")
    assert desk.next_delivery("t") == Delivery(2, is_over=True)


def test_relay_of_a_plain_study__gets_the_end_alone():
    desk = Desk(is_judged=False)
    desk.open("t")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(desk.next_delivery, "t")
        desk.report("t", epochs([0.1])[0])
        assert not waiting.done()
        desk.finish("t")
        assert waiting.result(timeout=5) == Delivery(1, is_over=True)


def test_verdict__reaches_who_waits_for_it():
    desk = Desk(is_judged=True)
    desk.open("t")
    desk.report("t", epochs([0.1])[0])
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(desk.wait_for_verdict, "t", 1)
        desk.judge("t", 1, is_stopped=True)
        assert waiting.result(timeout=5) is True
    assert desk.is_stopped("t")


def test_verdict__that_does_not_come_lets_the_waiter_look_up():
    desk = Desk(is_judged=True)
    desk.open("t")
    assert desk.wait_for_verdict("t", 1) is None


def test_epochs_of_before_a_restart__are_neither_delivered_nor_judged_again():
    desk = Desk(is_judged=True)
    desk.open("t", epochs([0.1, 0.2, 0.3]))
    for record in epochs([0.1, 0.2, 0.3, 0.4]):  # a resumed attempt repeats epochs 2 and 3
        desk.report("t", record)
    assert desk.wait_for_verdict("t", 3) is False
    assert desk.next_delivery("t") == Delivery(4, is_over=False)
    assert [record.eval_accuracy for record in desk.epochs("t")] == [0.1, 0.2, 0.3, 0.4]


def test_stop__holds_for_an_attempt_that_did_not_hear_it():
    desk = Desk(is_judged=True)
    desk.open("t", epochs([0.1]))
    desk.judge("t", 1, is_stopped=True)
    assert desk.wait_for_verdict("t", 2) is True


def test_close__lets_everybody_go():
    desk = Desk(is_judged=True)
    desk.open("t")
    with ThreadPoolExecutor() as pool:
        relay = pool.submit(desk.next_delivery, "t")
        threading.Timer(0.05, desk.close).start()
        assert relay.result(timeout=5).is_over
    assert desk.wait_for_verdict("t", 1) is False


def test_unknown_trial__is_over_for_a_relay():
    assert Desk(is_judged=True).next_delivery("nobody").is_over
