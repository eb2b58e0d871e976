from dataclasses import replace
from typing import Any

import pytest

from tests.support import jobs
from xsam.services.db.session import Database
from xsam.services.errors import LeaseLostError
from xsam.services.jobs.queue import Lease
from xsam.services.metrics import service as metrics
from xsam.services.metrics.models import NamedMetric
from xsam.services.metrics.records import AlphaRecord, EpochRecord
from xsam.services.metrics.schemas import EpochRead

EPOCH = EpochRecord(
    epoch=1,
    step=10,
    train_loss=1.5,
    train_accuracy=0.5,
    eval_loss=1.6,
    eval_accuracy=0.4,
    lr=0.1,
    epoch_s=2.0,
    samples_per_s=500.0,
    grad_evals=20,
    probe_forwards=3,
)
ALPHA = AlphaRecord(epoch=1, step=10, alpha=0.6, angle_rad=0.3, alphas=(0.0, 0.6, 1.2), losses=(1.0, 2.0, 1.5))


def _epoch(number: int, **changes: Any) -> EpochRecord:
    return replace(EPOCH, epoch=number, step=10 * number, **changes)


def _alpha(step: int) -> AlphaRecord:
    return replace(ALPHA, step=step, epoch=step // 10)


def _write(database: Database, lease: Lease, *, epochs: tuple[EpochRecord, ...] = (), steps: tuple[int, ...] = ()):
    with database.unit_of_work() as session:
        metrics.write_epochs(session, lease, epochs)
        metrics.write_alphas(session, lease, [_alpha(step) for step in steps])


def _stored(database: Database, job_id: str) -> tuple[list[int], list[int]]:
    with database.read() as session:
        epochs = [row.epoch for row in metrics.list_epochs(session, job_id)]
        return epochs, [row.step for row in metrics.list_alphas(session, job_id)]


def test_write__stores_every_field_and_moves_the_progress(database: Database) -> None:
    lease = jobs.submit_and_claim(database)
    _write(database, lease, epochs=(EPOCH,), steps=(10,))
    with database.read() as session:
        [row] = metrics.list_epochs(session, lease.job_id)
        [alpha] = metrics.list_alphas(session, lease.job_id)
    assert {name: getattr(row, name) for name in EPOCH.__slots__} == {n: getattr(EPOCH, n) for n in EPOCH.__slots__}
    assert row.attempt == 1
    assert alpha == ALPHA
    assert jobs.read(database, lease.job_id).epochs_done == 1


def test_write__of_an_epoch_run_again_replaces_its_row(database: Database) -> None:
    lease = jobs.submit_and_claim(database)
    _write(database, lease, epochs=(_epoch(1), _epoch(2, eval_loss=9.0)))
    _write(database, lease, epochs=(_epoch(2, eval_loss=1.0),))
    with database.read() as session:
        assert [row.eval_loss for row in metrics.list_epochs(session, lease.job_id)] == [1.6, 1.0]


def test_write__without_the_lease_stores_nothing(database: Database) -> None:
    lease = jobs.submit_and_claim(database)
    jobs.let_lease_expire(database, lease.job_id)
    for part in ({"epochs": (EPOCH,)}, {"steps": (10,)}):
        with pytest.raises(LeaseLostError):
            _write(database, lease, **part)
    with pytest.raises(LeaseLostError), database.unit_of_work() as session:
        metrics.rewind(session, lease, epoch=0, step=0)
    assert _stored(database, lease.job_id) == ([], [])


def test_rewind__drops_what_lies_beyond_the_point_of_resume(database: Database) -> None:
    lease, other = jobs.submit_and_claim(database), jobs.submit_and_claim(database)
    for one in (lease, other):
        _write(database, one, epochs=tuple(_epoch(n) for n in (1, 2, 3)), steps=(5, 10, 15, 20, 25))
    with database.unit_of_work() as session:
        metrics.rewind(session, lease, epoch=1, step=15)
    assert _stored(database, lease.job_id) == ([1], [5, 10, 15])
    assert jobs.read(database, lease.job_id).epochs_done == 1
    assert _stored(database, other.job_id) == ([1, 2, 3], [5, 10, 15, 20, 25])


def test_list__reads_on_after_a_point(database: Database) -> None:
    lease = jobs.submit_and_claim(database)
    _write(database, lease, epochs=tuple(_epoch(n) for n in (1, 2, 3)), steps=(10, 20, 30))
    with database.read() as session:
        assert [row.epoch for row in metrics.list_epochs(session, lease.job_id, after=1)] == [2, 3]
        assert [row.step for row in metrics.list_alphas(session, lease.job_id, after_step=10)] == [20, 30]


def test_epoch_read__is_a_record_and_its_attempt() -> None:
    """Pydantic can't extend a plain class, so the fields stand twice; this holds them together."""
    assert set(EpochRead.model_fields) == {"attempt", "trained_s", *EPOCH.__slots__}


def test_named_metrics__are_rows_that_follow_their_epoch(database: Database) -> None:
    lease = jobs.submit_and_claim(database)
    own = [_epoch(n, eval_accuracy=None, metrics={"f1": n / 10, "val/rmse": 2.0 / n}) for n in (1, 2, 3)]
    _write(database, lease, epochs=tuple(own))
    _write(database, lease, epochs=(replace(own[1], metrics={"f1": 0.9, "val/rmse": 1.0}),))
    with database.unit_of_work() as session:
        metrics.rewind(session, lease, epoch=2, step=20)
    with database.read() as session:
        read = metrics.list_epochs(session, lease.job_id)
        by_epoch = session.execute(metrics.values_by_epoch("f1").order_by(NamedMetric.epoch)).all()
        accuracies = session.execute(metrics.values_by_epoch("accuracy")).all()
    assert [(row.epoch, row.eval_accuracy, row.metrics) for row in read] == [
        (1, None, {"f1": 0.1, "val/rmse": 2.0}),
        (2, None, {"f1": 0.9, "val/rmse": 1.0}),
    ]
    assert [row[1] for row in by_epoch] == [0.1, 0.9]
    assert accuracies == []


def test_list_epochs__thinned_keeps_the_spike(database: Database) -> None:
    lease = jobs.submit_and_claim(database)
    epochs = tuple(_epoch(number, eval_loss=9.0 if number == 33 else 1.0) for number in range(1, 101))
    _write(database, lease, epochs=epochs)
    with database.read() as session:
        thinned = metrics.list_epochs(session, lease.job_id, points=20)
        assert len(metrics.list_epochs(session, lease.job_id)) == 100
    assert len(thinned) <= 20
    assert 33 in [epoch.epoch for epoch in thinned]
    assert (thinned[0].epoch, thinned[-1].epoch) == (1, 100)


def test_list_epochs__says_how_long_was_trained_also_where_epochs_are_left_out(database: Database) -> None:
    lease = jobs.submit_and_claim(database)
    _write(database, lease, epochs=tuple(_epoch(number, epoch_s=float(number)) for number in range(1, 101)))
    with database.read() as session:
        thinned = metrics.list_epochs(session, lease.job_id, points=20)
        later = metrics.list_epochs(session, lease.job_id, after=98)
    assert all(one.trained_s == one.epoch * (one.epoch + 1) / 2 for one in thinned)
    assert [one.trained_s for one in later] == [4950.0, 5050.0]


def test_alpha_map__lays_all_curves_on_one_grid(database: Database) -> None:
    lease = jobs.submit_and_claim(database)
    curves = [
        AlphaRecord(epoch=1, step=1, alpha=1.0, angle_rad=0.3, alphas=(0.0, 1.0, 2.0), losses=(1.0, 2.0, 1.5)),
        AlphaRecord(epoch=1, step=2, alpha=2.0, angle_rad=0.3, alphas=(0.0, 1.0, 2.0), losses=(5.0, 5.5, 7.0)),
        AlphaRecord(epoch=2, step=3, alpha=1.0, angle_rad=0.3, alphas=(0.0, 1.0), losses=(0.0, 4.0)),
        AlphaRecord(epoch=2, step=4, alpha=0.0, angle_rad=0.3, alphas=(0.0, 2.0), losses=(2.0, 0.0)),
    ]
    with database.unit_of_work() as session:
        metrics.write_alphas(session, lease, curves)
    with database.read() as session:
        fine = metrics.alpha_map(session, lease.job_id)
        coarse = metrics.alpha_map(session, lease.job_id, columns=2, rows=3)
        thinned = metrics.list_alphas(session, lease.job_id, points=10)
    assert fine.alphas == [0.0, 1.0, 2.0]
    assert [column.losses for column in fine.columns] == [[0, 1, 0.5], [0, 0.5, 2], [0, 4, None], [2, 1, 0]]
    assert [(column.num, column.alpha, column.step) for column in coarse.columns] == [(2, 1.5, 1), (2, 0.5, 3)]
    assert [column.angle_rad for column in coarse.columns] == pytest.approx([0.3, 0.3])
    assert coarse.columns[0].losses == [0, 0.75, 1.25]
    assert (fine.num_searches, fine.low_edge_share, fine.high_edge_share) == (4, 0.25, 0.5)
    assert len(thinned) == 4


def test_alpha_map__of_a_job_that_does_not_search_is_empty(database: Database) -> None:
    job_id = jobs.submit(database)
    with database.read() as session:
        found = metrics.alpha_map(session, job_id)
    assert (found.alphas, found.columns, found.low_edge_share) == ([], [], None)
