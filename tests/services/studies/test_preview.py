"""What a study will take, counted and timed from history."""

import pytest

from tests.support import studies
from tests.support.studies import HandRunner
from xsam.services.cluster import service as cluster
from xsam.services.cluster.service import NodeSeen
from xsam.services.errors import InfeasibleError, InvalidRequestError
from xsam.services.studies import service
from xsam.services.studies.spec import StudySpec

POINT = {"optimizer.rho": 0.1}


def preview(database, **fields):
    with database.read() as session:
        return service.preview(session, StudySpec.model_validate({**studies.SMALL, **fields}), team="red")


def see_nodes(database, num_cpus=4.0, num_gpus=0.0):
    with database.unit_of_work() as session:
        cluster.report_alive(session, "d", nodes=[NodeSeen("n", "h", num_cpus, num_gpus)], num_warm_runners=0)


def test_preview__counts_trials_gradients_and_probes(database):
    """A trial: 4 epochs x 2 steps x 2 passes, and a search of 21 probes in each epoch."""
    found = preview(database)
    assert (found.num_trials, found.grad_evals, found.probe_forwards) == (6, 6 * 16, 6 * 4 * 21)
    assert (found.work_s, found.gpu_hours) == (None, None)
    base = {**studies.SMALL["base"], "optimizer": {"variant": "xsam", "alpha_batches": 16}}
    assert preview(database, base=base).probe_forwards == 6 * 4 * 21 * 2, "an epoch has two batches"


def test_preview__counts_control_arms_and_confirmation(database):
    found = preview(database, control=True, confirm_seeds=2)
    assert [(arm.arm, arm.num_trials, arm.num_confirm_trials) for arm in found.arms] == [
        ("xsam", 6, 2),
        ("sgd", 1, 2),
        ("sam", 6, 2),
    ]
    assert found.grad_evals == (8 + 3 + 8) * 16
    assert found.probe_forwards == 8 * 4 * 21


def test_preview__counts_a_grid_exactly(database):
    space = {
        "optimizer.rho": {"type": "choice", "values": [0.1, 0.2]},
        "optimizer.ascent_steps": {"type": "int", "low": 1, "high": 2},
    }
    fields = {"space": space, "sampler": {"name": "grid"}, "num_trials": None, "compute": "epochs"}
    assert preview(database, **fields).grad_evals == 2 * (4 * 2 * 2) + 2 * (4 * 2 * 3)


def test_preview__does_not_guess_what_only_files_can_tell(database):
    found = preview(database, base={"dataset": {"name": "image_folder", "folder": "pictures"}})
    assert found.num_trials == 6
    assert found.grad_evals is None


def test_preview__is_timed_from_comparable_runs(database):
    runner = HandRunner.start(database, studies.submit(database))
    for config in range(3):
        runner.run(POINT, 0.5, config=config)  # 16 gradient evaluations in 2 s each
    see_nodes(database)
    found = preview(database, concurrency=8)
    assert (found.num_comparable, found.seconds_per_grad_eval) == (3, 2.0 / 16)
    assert found.work_s == pytest.approx(6 * 2.0)
    assert found.wall_s == pytest.approx(6 * 2.0 / 4)  # the cluster holds four at once
    assert preview(database, base={**studies.SMALL["base"], "batch_size": 16}).num_comparable == 0


def test_preview__refuses_what_cannot_run(database):
    see_nodes(database)
    with pytest.raises(InfeasibleError) as caught:
        preview(database, base={**studies.SMALL["base"], "resources": {"gpus_per_worker": 1}})
    assert caught.value.field == "base.resources.gpus_per_worker"
    with pytest.raises(InvalidRequestError) as not_allowed:
        preview(database, base={"model": {"name": "custom", "target": "team.nets:make"}})
    assert not_allowed.value.field == "base.model.target"
