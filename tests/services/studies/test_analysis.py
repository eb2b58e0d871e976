"""What a study says: best, arms, comparisons, cost, pages, exports, plots; on both databases."""

import csv
import io
import statistics

import pyarrow.parquet as pq
import pytest

from tests.support import studies
from tests.support.studies import HandRunner
from xsam.services.errors import ConflictError, InvalidRequestError, NotFoundError
from xsam.services.jobs.listing import JobFilter
from xsam.services.jobs.states import FailureKind, JobState
from xsam.services.studies import export, reading
from xsam.services.studies.analysis import paired_test
from xsam.services.studies.reading import TrialFilter, TrialSort

RHO_K = {
    "space": {
        "optimizer.rho": {"type": "log_uniform", "low": 0.01, "high": 0.5},
        "optimizer.ascent_steps": {"type": "choice", "values": [1, 3]},
    }
}


def start(database, **fields) -> HandRunner:
    return HandRunner.start(database, studies.submit(database, **fields))


def read(runner: HandRunner):
    with runner.database.read() as session:
        return reading.read_study(session, runner.study_id)


def page(runner: HandRunner, sort=TrialSort.NUMBER, cursor=None, limit=50, **where):
    with runner.database.read() as session:
        return reading.read_trials(
            session, runner.study_id, where=TrialFilter(**where), sort=sort, cursor=cursor, limit=limit
        )


def point(rho):
    return {"optimizer.rho": rho}


def test_study__tells_its_best_trial_and_what_it_cost(database):
    runner = start(database)
    for config, value in enumerate((0.5, 0.9, 0.7)):
        runner.run(point(0.1 + 0.1 * config), value, config=config)
    runner.fail(runner.claim(runner.propose(point(0.5), config=3)), FailureKind.DIVERGED)
    found = read(runner)
    assert (found.best_trial, found.best_value) == (2, 0.9)
    assert found.num_by_state == {JobState.SUCCEEDED: 3, JobState.FAILED: 1}
    assert found.num_trials == 6
    assert found.spent.grad_evals == 3 * 16
    assert found.spent.train_s == 6.0
    assert found.prediction is not None
    assert found.prediction.num_trials_left == 2
    assert found.prediction.left_s == pytest.approx(2 * 2.0 / 2)
    assert found.arms[0].best is not None
    assert found.arms[0].best.params == point(0.2)


def test_loss__is_best_when_small(database):
    runner = start(database, objective={"metric": "eval_loss"})
    for config, value in enumerate((0.5, 0.2, 0.7)):
        runner.run(point(0.1), value, config=config)
    assert read(runner).best_value == 0.2


def test_configuration__counts_by_the_mean_of_all_its_seeds(database):
    runner = start(database, seeds_per_config=2, num_trials=6)
    for seed, value in enumerate((0.9, 0.5)):
        runner.run(point(0.1), value, config=0, seed=seed)
    for seed, value in enumerate((0.75, 0.75)):
        runner.run(point(0.2), value, config=1, seed=seed)
    runner.run(point(0.3), 0.99, config=2, seed=0)
    runner.fail(runner.claim(runner.propose(point(0.3), config=2, seed=1)), FailureKind.DIVERGED)
    (arm,) = read(runner).arms
    assert arm.best is not None
    assert (arm.best.config, arm.best.mean, arm.best.num_seeds) == (1, 0.75, 2)
    assert arm.num_configs_done == 3


def control_study(database) -> HandRunner:
    """XSAM gains 0.05 over SAM and 0.1 over SGD on each of three confirmation seeds, give or take 0.01."""
    runner = start(database, control=True, num_trials=2, confirm_seeds=3)
    searched = {0: {0: 0.80, 1: 0.85}, 1: {0: 0.70}, 2: {0: 0.75, 1: 0.72}}
    for arm, values in searched.items():
        for config, value in values.items():
            runner.run({} if arm == 1 else point(0.1 + config / 10), value, arm=arm, config=config)
    for seed, noise in ((100, 0.01), (101, -0.01), (102, 0.0)):
        runner.run(point(0.2), 0.80 + noise, arm=0, config=1, seed=seed, phase="confirm")
        runner.run({}, 0.70, arm=1, config=0, seed=seed, phase="confirm")
        runner.run(point(0.1), 0.75, arm=2, config=0, seed=seed, phase="confirm")
    return runner


def test_confirmation__is_told_while_it_goes_on(database):
    runner = start(database, num_trials=1, confirm_seeds=3)
    assert read(runner).arms[0].confirmation.values == {}
    runner.run(point(0.1), 0.8)
    runner.run(point(0.1), 0.7, seed=100, phase="confirm")
    runner.fail(runner.claim(runner.propose(point(0.1), seed=101, phase="confirm")))
    runner.claim(runner.propose(point(0.1), seed=102, phase="confirm"))
    (arm,) = read(runner).arms
    on = arm.confirmation
    assert (on.num_seeds, on.num_running, on.num_failed, on.values, on.mean) == (3, 1, 1, {100: 0.7}, 0.7)
    assert arm.confirmed is None
    without = start(database, num_trials=1, confirm_seeds=0)
    assert read(without).arms[0].confirmation is None


def test_comparison__is_paired_over_seeds_that_the_search_has_not_seen(database):
    found = read(control_study(database))
    sgd, sam = found.comparisons
    assert (sam.arm, sam.against, sam.basis, sam.num_pairs, sam.wins) == ("xsam", "sam", "confirm", 3, 3)
    assert sam.gain == pytest.approx(0.05)
    assert sam.gain_sd == pytest.approx(0.01)
    assert sam.low is not None
    assert sam.low == pytest.approx(0.05 - 4.302653 * 0.01 / 3**0.5, abs=1e-6)
    assert sam.p_value is not None
    assert 0.01 < sam.p_value < 0.02
    assert sgd.gain == pytest.approx(0.10)
    assert sam.grad_evals_ratio == 1.0
    assert sam.seconds_ratio == 1.0
    assert "over 3 seeds against sam" in sam.sentence


def test_comparison__without_confirmation_uses_the_seeds_of_the_search_and_says_so(database):
    runner = start(database, control=True, num_trials=2, seeds_per_config=2, confirm_seeds=0)
    for seed, gain in enumerate((0.1, 0.3)):
        runner.run(point(0.1), 0.5 + gain, arm=0, seed=seed)
        runner.run(point(0.1), 0.5, arm=2, seed=seed)
    (sam,) = read(runner).comparisons
    assert (sam.basis, sam.num_pairs, sam.gain) == ("search", 2, pytest.approx(0.2))


def test_paired_test__needs_pairs_and_turns_with_the_mode():
    assert paired_test({1: 0.5}, {1: 0.4}, "max") is None
    assert paired_test({1: 0.5, 2: 0.6}, {3: 0.4, 4: 0.1}, "max") is None
    lower = paired_test({1: 0.5, 2: 0.6}, {1: 0.7, 2: 0.9}, "min")
    assert lower is not None
    assert (lower.gain, lower.wins) == (pytest.approx(0.25), 2)
    flat = paired_test({1: 0.5, 2: 0.6}, {1: 0.25, 2: 0.35}, "max")
    assert flat is not None
    assert (flat.p_value, flat.low) == (None, None)
    rounded = paired_test({1: 0.3, 2: 0.8, 3: 0.9}, {1: 0.2, 2: 0.7, 3: 0.8}, "max")
    assert rounded is not None
    assert (rounded.p_value, rounded.gain_sd) == (None, 0), "a spread of rounding alone makes no p of 1e-28"


def test_page__sorts_by_value_with_missing_ones_last_and_goes_on_by_cursor(database):
    runner = start(database, num_trials=10)
    values = (0.5, 0.9, 0.7, 0.9)
    for config, value in enumerate(values):
        runner.run(point(0.1), value, config=config)
    runner.propose(point(0.1), config=4)
    best_first, cursor = [], None
    while True:
        found = page(runner, TrialSort.VALUE_DESC, cursor, limit=2)
        best_first += [trial.number for trial in found.items]
        cursor = found.next_cursor
        if cursor is None:
            break
    assert best_first == [2, 4, 3, 1, 5]
    assert [trial.number for trial in page(runner, TrialSort.VALUE).items] == [1, 3, 2, 4, 5]
    assert [trial.number for trial in page(runner, TrialSort.NUMBER_DESC).items] == [5, 4, 3, 2, 1]


def test_page__filters(database):
    runner = control_study(database)
    assert {t.arm for t in page(runner, arm="sam").items} == {"sam"}
    assert len(page(runner, phase="confirm").items) == 9
    assert page(runner, states=[JobState.RUNNING]).items == []
    assert page(runner, stopped_early=True).items == []


def test_page__shows_how_far_a_running_trial_is(database):
    runner = start(database)
    runner.measure(runner.claim(runner.propose(point(0.1))), [0.6, 0.4], grad_evals=8)
    (trial,) = page(runner).items
    assert (trial.state, trial.value, trial.grad_evals, trial.epochs_done) == (JobState.RUNNING, 0.6, 8, 2)


def test_cursor__of_another_order_or_from_nowhere_is_refused(database):
    runner = start(database)
    for config in range(3):
        runner.run(point(0.1), 0.5, config=config)
    cursor = page(runner, TrialSort.VALUE, limit=1).next_cursor
    assert cursor is not None
    for bad, sort in ((cursor, TrialSort.NUMBER), ("nonsense", TrialSort.VALUE), ("W10=", TrialSort.VALUE)):
        with pytest.raises(InvalidRequestError) as caught:
            page(runner, sort, bad)
        assert caught.value.field == "cursor"


def test_list__shows_studies_with_their_counts(database):
    runner = start(database, name="first")
    runner.run(point(0.1), 0.8)
    other = studies.submit(database, actor=studies.BOB)
    with database.read() as session:
        newest, oldest = reading.list_studies(session, where=JobFilter(), cursor=None, limit=10).items
        assert (newest.id, oldest.id) == (other, runner.study_id)
        assert (oldest.best_value, oldest.num_by_state) == (0.8, {JobState.SUCCEEDED: 1})
        blue = reading.list_studies(session, where=JobFilter(team="blue"), cursor=None, limit=10)
        assert [study.id for study in blue.items] == [other]
        first = reading.list_studies(session, where=JobFilter(), cursor=None, limit=1)
        rest = reading.list_studies(session, where=JobFilter(), cursor=first.next_cursor, limit=1)
        assert [study.id for study in rest.items] == [runner.study_id]
        assert rest.next_cursor is None


def all_trials(runner: HandRunner):
    with runner.database.read() as session:
        return reading.all_trials(session, runner.study_id, where=TrialFilter(), sort=TrialSort.NUMBER)


def test_export__csv_has_a_column_for_each_searched_field(database):
    runner = start(database, **RHO_K)
    runner.run({"optimizer.rho": 0.1, "optimizer.ascent_steps": 3}, 0.8)
    runner.fail(
        runner.claim(runner.propose({"optimizer.rho": 0.2, "optimizer.ascent_steps": 1}, config=1)),
        message="=cmd|' /C calc'!A0",
    )
    first, second = csv.DictReader(io.StringIO(export.as_csv(all_trials(runner))))
    assert (first["params.optimizer.rho"], first["params.optimizer.ascent_steps"], first["value"]) == (
        "0.1",
        "3",
        "0.8",
    )
    assert (second["value"], second["failure_kind"]) == ("", "user")
    assert second["failure_message"].startswith("'=cmd")


def test_export__parquet_keeps_types(database):
    runner = start(database, **RHO_K)
    runner.run({"optimizer.rho": 0.1, "optimizer.ascent_steps": 3}, 0.8)
    runner.propose({"optimizer.rho": 0.2, "optimizer.ascent_steps": 1}, config=1)
    table = pq.read_table(io.BytesIO(export.as_parquet(all_trials(runner))))
    assert table.num_rows == 2
    assert table.column("value").to_pylist() == [0.8, None]
    assert table.column("params.optimizer.ascent_steps").to_pylist() == [3, 1]
    assert table.column("state").to_pylist() == ["succeeded", "queued"]


def test_export__of_no_trials_has_its_header(sqlite_database):
    runner = start(sqlite_database)
    assert export.as_csv(all_trials(runner)).startswith("id,number,arm")
    assert pq.read_table(io.BytesIO(export.as_parquet(all_trials(runner)))).num_rows == 0


def test_plots__have_history_map_and_importances(sqlite_database):
    runner = start(sqlite_database, **RHO_K, num_trials=20)
    for config in range(12):
        rho = 0.01 * 50 ** ((config % 6 + 0.5) / 6)
        k = (1, 3)[config // 6]
        runner.run({"optimizer.rho": rho, "optimizer.ascent_steps": k}, 0.9 - abs(rho - 0.1), config=config)
    with sqlite_database.read() as session:
        found = reading.read_plots(session, runner.study_id)
    assert [axis.kind for axis in found.axes] == ["log", "choice"]
    assert [p.best for p in found.points] == sorted(p.best for p in found.points)
    assert found.map is not None
    assert (found.map.across, found.map.rows) == ("optimizer.rho", ["1", "3"])
    assert sum(cell.num for cell in found.map.cells) == 12
    best = max(found.map.cells, key=lambda cell: cell.best)
    assert found.map.columns[best.column] == "0.09"
    assert next(iter(found.importances)) == "optimizer.rho"
    assert statistics.fsum(found.importances.values()) == pytest.approx(1.0)


def test_winner__becomes_a_whole_job(database):
    runner = start(database, **RHO_K)
    with database.read() as session, pytest.raises(ConflictError, match="nothing to promote"):
        reading.winning_job(session, runner.study_id)
    runner.run({"optimizer.rho": 0.1, "optimizer.ascent_steps": 1}, 0.8)
    runner.run({"optimizer.rho": 0.2, "optimizer.ascent_steps": 3}, 0.9, config=1)
    with database.read() as session:
        job = reading.winning_job(session, runner.study_id)
        assert (job.optimizer.rho, job.optimizer.ascent_steps, job.epochs) == (0.2, 3, 4)
        assert reading.winning_job(session, runner.study_id, number=1).optimizer.rho == 0.1
        with pytest.raises(NotFoundError):
            reading.winning_job(session, runner.study_id, number=7)
