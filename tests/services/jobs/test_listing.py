"""Lists in every order on both databases: complete, without repeats, whatever the page."""

import itertools
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from tests.support import jobs
from tests.support.jobs import ALICE, BOB
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.errors import InvalidRequestError
from xsam.services.jobs import listing
from xsam.services.jobs.listing import CountBy, JobFilter, JobSort
from xsam.services.jobs.states import FailureKind, JobState


def _ids(database: Database, limit: int = 50, sort: JobSort = JobSort.CREATED_DESC, **where: Any) -> list[str]:
    """Return the ids of all pages."""
    found: list[str] = []
    cursor = None
    while True:
        with database.read() as session:
            page, cursor, _ = listing.list_jobs(
                session, where=JobFilter(**where), sort=sort, cursor=cursor, limit=limit
            )
        assert len(page) <= limit
        found += [job.id for job in page]
        if cursor is None:
            return found


def _make(database: Database, age_s: float, **columns: Any) -> str:
    job_id = jobs.submit(database, actor=columns.pop("actor", ALICE))
    jobs.set_columns(database, job_id, created_at=db_now(-age_s), **columns)
    return job_id


@pytest.fixture
def six(database: Database) -> dict[str, str]:
    """Jobs by a letter, a the oldest, with equal and missing values in every column."""
    values = {
        "a": {"name": "beta", "best_value": 0.5, "grad_evals": 100},
        "b": {"name": None, "best_value": None, "grad_evals": None},
        "c": {"name": "alpha", "best_value": 0.9, "grad_evals": 50},
        "d": {"name": "beta", "best_value": 0.5, "grad_evals": 100},
        "e": {"name": None, "best_value": None, "grad_evals": None},
        "f": {"name": "gamma", "best_value": 0.1, "grad_evals": 7},
    }
    return {letter: _make(database, 60 - number, **given) for number, (letter, given) in enumerate(values.items())}


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("created", "abcdef"),
        ("-created", "fedcba"),
        ("name", "cadfeb"),
        ("-name", "fdaceb"),
        ("best", "fadceb"),
        ("-best", "cdafeb"),
        ("cost", "fcadeb"),
        ("-cost", "dacfeb"),
        ("state", "abcdef"),
        ("-user", "fedcba"),
    ],
)
def test_list__is_in_order_with_what_has_no_value_last(
    database: Database, six: dict[str, str], sort: str, expected: str
) -> None:
    letters = {job_id: letter for letter, job_id in six.items()}
    for limit in (1, 2, 4, 50):
        assert "".join(letters[one] for one in _ids(database, limit, JobSort(sort))) == expected


@pytest.mark.parametrize("sort", JobSort)
def test_list__goes_back_by_the_pages_it_came(database: Database, six: dict[str, str], sort: JobSort) -> None:
    for limit in (1, 2, 4):
        pages, cursor = [], None
        with database.read() as session:
            while not pages or cursor is not None:
                page = listing.list_jobs(session, where=JobFilter(), sort=sort, cursor=cursor, limit=limit)
                pages.append(page)
                cursor = page.next_cursor
            for before, page in reversed(list(itertools.pairwise(pages))):
                back = page.previous_cursor
                found = listing.list_jobs(session, where=JobFilter(), sort=sort, cursor=back, limit=limit)
                assert found.jobs == before.jobs
                assert found.previous_cursor == before.previous_cursor
        assert pages[0].previous_cursor is None


def test_list__goes_back_to_a_whole_first_page_as_it_is_now(database: Database, six: dict[str, str]) -> None:
    with database.read() as session:
        first = listing.list_jobs(session, where=JobFilter(), limit=2)
        second = listing.list_jobs(session, where=JobFilter(), cursor=first.next_cursor, limit=2)
    newest = _make(database, 1)
    with database.read() as session:
        back = listing.list_jobs(session, where=JobFilter(), cursor=second.previous_cursor, limit=4)
        assert [job.id for job in back.jobs] == [newest, six["f"], six["e"], six["d"]]
        assert back.previous_cursor is None
        assert back.next_cursor is not None


def test_cursor__is_refused_where_it_was_made_for_another_order(database: Database, six: dict[str, str]) -> None:
    with database.read() as session:
        cursor = listing.list_jobs(session, where=JobFilter(), sort=JobSort.NAME, limit=2).next_cursor
        with pytest.raises(InvalidRequestError, match="next_cursor of an earlier page with sort=best"):
            listing.list_jobs(session, where=JobFilter(), sort=JobSort.BEST, cursor=cursor)


def test_filters__find_by_what_a_job_is(database: Database) -> None:
    sam = jobs.submit(database, name="Vision run", optimizer={"variant": "sam"}, model={"name": "mlp"})
    other = jobs.submit(database, actor=BOB, name="off_peak", dataset={"name": "mnist"})
    for where, expected in (
        ({"optimizer": "sam"}, [sam]),
        ({"model": "mlp"}, [sam]),
        ({"dataset": "mnist"}, [other]),
        ({"user": "bob"}, [other]),
        ({"q": "vision"}, [sam]),
        ({"q": "F_p"}, [other]),
        ({"q": "%"}, []),
        ({"q": sam[:6]}, [sam]),
        ({"q": "nothing"}, []),
    ):
        assert _ids(database, **where) == expected, where


def test_filters__find_by_time(database: Database) -> None:
    old, new = _make(database, 3600), _make(database, 10)
    middle = jobs.read(database, new).created_at - timedelta(seconds=60)
    assert _ids(database, since=middle) == [new]
    assert _ids(database, until=middle) == [old]


def test_filters__find_failures_of_a_kind_and_survive_one_nobody_knows(database: Database) -> None:
    failed = {
        kind: _make(database, 5, state="failed", failure_kind=kind) for kind in ("diverged", "out_of_memory", "novel")
    }
    assert _ids(database, failures=[FailureKind.DIVERGED]) == [failed["diverged"]]
    assert set(_ids(database)) == set(failed.values())


def test_count__is_by_what_is_asked_for(database: Database) -> None:
    for actor in (ALICE, ALICE, BOB):
        jobs.submit(database, actor=actor)
    jobs.submit_and_claim(database)
    with database.read() as session:
        [everything] = listing.count_jobs(session, where=JobFilter())
        by = listing.count_jobs(session, where=JobFilter(), by=[CountBy.STATE, CountBy.TEAM])
        mine = listing.count_jobs(session, where=JobFilter(team="blue"), by=[CountBy.USER])
        none = listing.count_jobs(session, where=JobFilter(team="nosuch"), by=[CountBy.USER])
    assert (everything.num, everything.is_exact, everything.by) == (4, True, {})
    assert [(group.num, dict(group.by)) for group in by] == [
        (2, {"state": "queued", "team": "red"}),
        (1, {"state": "queued", "team": "blue"}),
        (1, {"state": "running", "team": "red"}),
    ]
    assert [(group.num, group.by["user"]) for group in mine] == [(1, "bob")]
    assert none == []


def test_count__says_where_it_stops(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "COUNTED_EXACTLY", 2)
    for _ in range(3):
        jobs.submit(database)
    with database.read() as session:
        [group] = listing.count_jobs(session, where=JobFilter(), by=[CountBy.STATE])
    assert (group.num, group.is_exact) == (2, False)


_ORDERED = {
    "ix_jobs_list_created": JobSort.CREATED_DESC,
    "ix_jobs_list_name": JobSort.NAME,
    "ix_jobs_list_state": JobSort.STATE_DESC,
    "ix_jobs_list_user": JobSort.USER,
    "ix_jobs_list_best": JobSort.BEST_DESC,
    "ix_jobs_list_cost": JobSort.COST,
}


@pytest.mark.parametrize(("index", "sort"), _ORDERED.items())
def test_page__is_read_from_the_index_of_its_order(database: Database, index: str, sort: JobSort) -> None:
    made = [_make(database, n, name="n", best_value=0.5, grad_evals=n) for n in range(3)]
    with database.read() as session:
        cursor = listing.list_jobs(session, where=JobFilter(), sort=sort, limit=1).next_cursor
        assert cursor is not None
        back = listing.list_jobs(session, where=JobFilter(), sort=sort, limit=1, cursor=cursor).previous_cursor
        assert back is not None
        plans: list[str] = []
        connection = session.connection()
        if not database.is_sqlite:
            for kind in ("seqscan", "sort", "bitmapscan"):  # of so small a table
                connection.execute(text(f"SET LOCAL enable_{kind} = off"))
        for one in (cursor, back):
            _record_plans(session, database, plans, sort, one)
    assert any(index in plan for plan in plans), plans
    assert all("USE TEMP B-TREE" not in plan for plan in plans), plans
    assert len(made) == 3


def _record_plans(session: Any, database: Database, plans: list[str], sort: JobSort, cursor: str) -> None:
    """Read a page after a cursor, and explain each of its statements."""
    from sqlalchemy import event

    statements: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool) -> None:
        statements.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        listing.list_jobs(session, where=JobFilter(), sort=sort, cursor=cursor, limit=1)
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
    for statement, parameters in statements:
        rows = session.connection().exec_driver_sql(explain + statement, parameters).all()
        plans.append("\n".join(str(row[-1]) for row in rows))


def test_state_filter__is_combined_with_any_order(database: Database) -> None:
    running = jobs.submit_and_claim(database).job_id
    waiting = jobs.submit(database)
    for sort in JobSort:
        assert _ids(database, sort=sort, states=[JobState.RUNNING]) == [running]
        assert set(_ids(database, 1, sort)) == {running, waiting}
