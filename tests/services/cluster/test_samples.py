"""Samples on both databases; time is given, never slept."""

from datetime import UTC, datetime, timedelta

import pytest

from xsam.services.cluster import samples
from xsam.services.cluster.samples import Sample
from xsam.services.db.session import Database

NOW = datetime(2026, 6, 15, 12, 30, tzinfo=UTC)


def _sample(used_gpus: float, **teams: tuple[float, float]) -> Sample:
    return Sample(2, 8, 64, used_gpus, 8, 3, 5, teams)


def _write(database: Database, at: datetime, sample: Sample) -> None:
    with database.unit_of_work() as session:
        samples.write(session, at, sample)


def _read(database: Database, most: int = 100) -> list[tuple[datetime, int, float]]:
    with database.read() as session:
        rows = samples.list_samples(session, since=NOW - timedelta(days=999), until=NOW + timedelta(days=1), most=most)
        return [(row.at, row.span_s, row.used_gpus) for row in rows]


def test_sample__is_one_a_minute(database: Database) -> None:
    _write(database, NOW.replace(second=3), _sample(1))
    _write(database, NOW.replace(second=59), _sample(2))
    assert _read(database) == [(NOW, 60, 2)]


def test_old_minutes__become_means_of_hours(database: Database) -> None:
    old = NOW - samples.MINUTES_KEPT - timedelta(days=2)
    for minute, used in enumerate((2, 4, 6)):
        _write(database, old + timedelta(minutes=minute), _sample(used, red=(used, 1)))
    _write(database, old + timedelta(hours=2), _sample(8, blue=(8, 0)))
    _write(database, NOW, _sample(1))
    with database.unit_of_work() as session:
        samples.thin_out(session, NOW)
        samples.thin_out(session, NOW)
    hour = old.replace(minute=0)
    assert _read(database) == [
        (hour, 3600, pytest.approx(4)),
        (hour + timedelta(hours=2), 3600, pytest.approx(8)),
        (NOW, 60, 1),
    ]
    with database.read() as session:
        [first, *_] = samples.list_samples(session, since=hour, until=NOW, most=10)
    assert first.teams == {"red": [pytest.approx(4), 1]}


def test_hours__are_forgotten_after_a_year(database: Database) -> None:
    for age in (samples.HOURS_KEPT + timedelta(hours=2), samples.HOURS_KEPT - timedelta(days=1)):
        with database.unit_of_work() as session:
            samples._store(session, samples.HOUR_S, NOW - age, _sample(1))
    with database.unit_of_work() as session:
        samples.thin_out(session, NOW)
    assert len(_read(database)) == 1


def test_list__leaves_out_evenly_and_keeps_the_newest(database: Database) -> None:
    for minute in range(10):
        _write(database, NOW - timedelta(minutes=minute), _sample(minute))
    assert [used for _, _, used in _read(database, most=5)] == [8, 6, 4, 2, 0]
