from datetime import timedelta

import pytest
from sqlalchemy import update

from tests.support import jobs, studies
from tests.support.jobs import ALICE, BOB
from tests.support.studies import HandRunner
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.errors import InvalidRequestError
from xsam.services.jobs import queue
from xsam.services.jobs.models import JobEvent
from xsam.services.reports import changes
from xsam.services.reports.changes import ChangesRead, Position


def _present(database: Database) -> Position:
    with database.read() as session:
        return changes.present(session)


def _since(database: Database, after: Position, team: str | None = None) -> ChangesRead:
    with database.read() as session:
        return changes.since(session, after, visible_team=team)


def _let_time_pass(database: Database) -> None:
    """Let all events be old enough for a position to count them as known."""
    with database.unit_of_work() as session:
        session.execute(update(JobEvent).values(at=db_now(-60)))


def test_since__says_how_what_changed_stands_now(database: Database) -> None:
    jobs.submit(database, name="before")
    _let_time_pass(database)
    here = _present(database)
    assert _since(database, here).items == []
    job_id = jobs.submit(database, name="mine", epochs=7)
    jobs.claim(database, job_id)
    [change] = _since(database, here).items
    assert (change.job_id, change.kind, change.name, change.team) == (job_id, "training", "mine", "red")
    assert (change.state, change.attempt, change.num_epochs) == ("running", 1, 7)
    assert change.events == ["submitted", "started"]


def test_since__shows_progress_which_writes_no_event(database: Database) -> None:
    lease = jobs.submit_and_claim(database)
    _let_time_pass(database)
    here = _present(database)
    with database.unit_of_work() as session:
        queue.merge_progress(session, lease, {"step": 5, "steps_per_epoch": 10, "loss": 0.25})
    [change] = _since(database, here).items
    assert (change.step, change.steps_per_epoch, change.loss, change.events) == (5, 10, 0.25, [])


def test_since__knows_whose_a_trial_is(database: Database) -> None:
    here = _present(database)
    runner = HandRunner.start(database, studies.submit(database))
    runner.run({"optimizer.rho": 0.1}, 0.5)
    by_kind = {change.kind: change for change in _since(database, here).items}
    assert by_kind["study"].job_id == runner.study_id
    trial = by_kind["trial"]
    assert (trial.study_id, trial.trial, trial.state) == (runner.study_id, 1, "succeeded")


def test_since__shows_a_team_its_own(database: Database) -> None:
    here = _present(database)
    red, blue = jobs.submit(database, actor=ALICE), jobs.submit(database, actor=BOB)
    jobs.claim(database, blue)
    assert [change.job_id for change in _since(database, here, "red").items] == [red]
    assert {change.job_id for change in _since(database, here).items} == {red, blue}


def test_position__does_not_pass_events_that_may_have_younger_siblings(database: Database) -> None:
    jobs.submit(database)
    assert _present(database).event_id == 0, "a lower id may still be committed"
    _let_time_pass(database)
    assert _present(database).event_id > 0


def test_since__asks_to_reload_what_is_too_old_from_the_future_or_too_much(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = _present(database)
    for age_s in (changes.KEPT_S + 1, -3600):
        answer = _since(database, Position(0, here.at - timedelta(seconds=age_s)))
        assert (answer.reload, answer.items) == (True, [])
    monkeypatch.setattr(changes, "MOST", 1)
    for _ in range(2):
        jobs.submit(database)
    assert _since(database, here).reload


@pytest.mark.parametrize("text", ["", "1", "1.", "x.1", "1.2.3", "-1.2", "1." + "9" * 12])
def test_position__refuses_what_is_none(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="cursor of an earlier answer"):
        Position.parse(text)


def test_position__is_read_back_from_its_text(database: Database) -> None:
    here = _present(database)
    assert str(Position.parse(str(here))) == str(here)
    assert Position.parse("1." + "9" * 11).event_id == 1
