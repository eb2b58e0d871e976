"""A short storm: processes of every kind are killed and stopped while jobs and a study go on, and nothing is lost."""

import os

import pytest

from tests.e2e.storm import Options, storm
from tests.support.postgres_server import find_programs

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.e2e,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.db,
]

TESTED_ALONE = ("kill raylet", "restart API")
"""Each takes a restart of the whole cluster: see test_local_cluster and test_rolling_restart."""
SHORT = Options(
    seed=20, min_strikes=0, seconds=0, num_jobs=5, num_studies=1, epochs=8, pause_s=1.0, spared=TESTED_ALONE
)


def test_storm__all_succeed_with_each_epoch_once_and_the_weights_of_undisturbed_runs() -> None:
    if find_programs() is None:
        if "postgres" in os.environ.get("XSAM_TEST_REQUIRE", ""):
            pytest.fail("PostgreSQL's programs (initdb, pg_ctl) are required but not installed")
        pytest.skip("PostgreSQL's programs (initdb, pg_ctl) are not installed on this machine")
    outcome = storm(SHORT)
    assert outcome.wrong == []
    assert set(outcome.states) == {"succeeded", "study succeeded"}
    assert outcome.missed.keys() <= outcome.strikes.keys(), "each kind of strike was to hit something"
    assert outcome.attempts > outcome.states.total(), "no attempt was interrupted: the storm missed"
