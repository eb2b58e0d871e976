"""Numbers of teams: their own, and for good."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import callers
from xsam.services.db.session import Database
from xsam.services.teams.numbers import number_of


def test_number__is_given_once_and_to_one_team(database: Database) -> None:
    callers.make_team(database, "red")
    assert number_of(database, "red") == 0
    assert number_of(database, "blue") == 1, "also of a team that has only jobs"
    callers.make_team(database, "red", weight=2.0)
    assert [number_of(database, team) for team in ("red", "blue")] == [0, 1]


@pytest.mark.db
def test_numbers__that_are_asked_for_at_once_differ(postgres_database: Database) -> None:
    names = [f"team-{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda name: number_of(postgres_database, name), names * 2))
    assert sorted(numbers) == sorted([*range(8)] * 2)
    assert numbers[:8] == numbers[8:]
