import pytest
from pydantic import ValidationError

from xsam.services.studies.arms import arms_of, job_spec
from xsam.services.studies.spec import StudySpec

RHO = {"type": "log_uniform", "low": 0.01, "high": 0.5}


def study(**fields):
    return StudySpec.model_validate({"space": {"optimizer.rho": RHO}, **fields})


@pytest.mark.parametrize("preset", ["rho", "rho-k", "control"])
def test_preset__is_a_whole_study_and_survives_being_stored(preset):
    spec = StudySpec.model_validate({"preset": preset})
    assert "optimizer.rho" in spec.space
    assert StudySpec.model_validate(spec.model_dump(mode="json")) == spec


def test_preset__gives_way_to_what_is_said():
    spec = StudySpec.model_validate({"preset": "rho-k", "sampler": {"name": "tpe"}, "num_trials": 7})
    assert spec.sampler.name == "tpe"
    assert spec.num_configs == 7


def test_preset__fits_the_number_of_seeds():
    assert StudySpec.model_validate({"preset": "rho", "seeds_per_config": 3}).num_configs == 12


def test_preset__leaves_out_the_probe_radius_of_an_optimizer_without_one():
    spec = StudySpec.model_validate({"preset": "rho", "base": {"optimizer": {"variant": "sam"}}})
    assert list(spec.space) == ["optimizer.rho"]


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("precision", ["fp32", "bf16", "fp16"]),
        ("recipe.micro_batches", [1, 4]),
        ("recipe.max_grad_norm", [None, 1.0]),
        ("recipe.ema_decay", [None, 0.99]),
        ("dataset.label_smoothing", [0.0, 0.1]),
        ("dataset.mixup", [0.0, 0.2]),
        ("dataset.cutmix", [0.0, 1.0]),
        ("parameters.freeze", [[], ["0.*"]]),
        ("parameters.no_perturb", [[], ["norms", "biases"]]),
        ("speed.channels_last", [False, True]),
        ("schedule", [{"name": "linear"}, {"name": "one_cycle"}]),
    ],
)
def test_options_of_the_loop__can_be_searched(path, values):
    spec = study(space={path: {"type": "choice", "values": values}}, base={"epochs": 2})
    field, _, rest = path.partition(".")
    jobs = [job_spec(spec, arms_of(spec)[0], {path: value}, seed=0).model_dump(mode="json") for value in values]
    for job, value in zip(jobs, values, strict=True):
        found = job[field][rest] if rest else job[field]
        assert found == value or value.items() <= found.items()


def test_num_configs__is_the_whole_grid_unless_told_otherwise():
    grid = {"sampler": {"name": "grid", "points": 4}}
    assert study(**grid).num_configs == 4
    assert study(**grid, num_trials=2).num_configs == 2
    assert study().num_configs == 20
    assert study(num_trials=12, seeds_per_config=3).num_configs == 4


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"space": {}}, None),
        ({"space": {"optimizer.rhoo": RHO}}, "space.optimizer.rhoo"),
        ({"space": {"nothing.here": RHO}}, "space.nothing.here"),
        ({"space": {"optimizer.rho": {"type": "uniform", "low": -1, "high": 1}}}, "space.optimizer.rho"),
        ({"space": {"batch_size": {"type": "int", "low": 1, "high": 5000}}}, "space.batch_size"),
        ({"space": {"seed": {"type": "int", "low": 1, "high": 5}}}, "space.seed"),
        ({"space": {"epochs": {"type": "int", "low": 1, "high": 5}}}, "space.epochs"),
        ({"space": {"optimizer.rho_max": {"type": "ratio", "of": "optimizer.rho", "factor": 2}}}, "space"),
        (
            {"space": {"optimizer.rho": RHO, "optimizer.rho_max": {"type": "ratio", "of": "optimizer.x", "factor": 2}}},
            "space.optimizer.rho_max.of",
        ),
        ({"space": {"optimizer": {"type": "choice", "values": [{}]}, "optimizer.rho": RHO}}, "space.optimizer.rho"),
        ({"num_trials": 10, "seeds_per_config": 3}, "num_trials"),
        ({"sampler": {"name": "grid", "points": 3}, "num_trials": 4}, "num_trials"),
        ({"control": True, "base": {"optimizer": {"variant": "sam"}}}, "control"),
        (
            {"control": True, "space": {"optimizer": {"type": "choice", "values": [{"variant": "xsam"}]}}},
            "control",
        ),
        ({"early_stopping": {"name": "asha", "unit": "epochs"}}, "early_stopping.unit"),
        ({"early_stopping": {"name": "hyperband", "brackets": 4}}, "early_stopping.brackets"),
        ({"early_stopping": {"name": "hyperband", "unit": "epochs"}}, "early_stopping.unit"),
        ({"preset": "rho", "sampler": {"name": "cma_es"}}, "sampler"),
        (
            {
                "space": {"optimizer.rho": RHO, "optimizer.ascent_steps": {"type": "choice", "values": [1, 2]}},
                "sampler": {"name": "cma_es"},
            },
            "space.optimizer.ascent_steps",
        ),
        ({"colour": "red"}, None),
    ],
)
def test_spec__refuses_what_cannot_be_searched_and_names_the_field(fields, field):
    with pytest.raises(ValidationError) as caught:
        study(**fields)
    context = caught.value.errors()[0].get("ctx", {})
    assert context.get("field") == field


def test_spec__searches_over_whole_optimizers():
    values = [{"variant": "sam", "rho": 0.1}, {"variant": "xsam", "rho": 0.2}]
    spec = study(space={"optimizer": {"type": "choice", "values": values}})
    assert spec.num_configs == 20


def test_confirm_seeds__come_with_control_arms():
    assert study().num_confirm_seeds == 0
    assert study(control=True).num_confirm_seeds == 5
    assert study(control=True, confirm_seeds=0).num_confirm_seeds == 0


TASK = {"task": {"target": "acme.task:Defects"}}


def test_objective__of_an_own_task_is_what_the_base_job_calls_best():
    given = study(base={**TASK, "best": "f1:max"})
    assert (given.objective.metric, given.objective.mode) == ("f1", "max")
    assert study(base=TASK, objective={"metric": "rmse", "mode": "min"}).objective.mode == "min"
    assert study(objective={"metric": "eval_loss"}).objective.mode == "min"


def test_script__is_searched_over_its_config_and_its_arguments_follow():
    code = {"bundle": "sha256:" + 64 * "0"}
    script = {"code": code, "entrypoint": "train.py --rho {config.rho}", "config": {"rho": 0.1}, "best": "loss:min"}
    given = StudySpec.model_validate({"base": script, "space": {"config.rho": RHO}})
    job = job_spec(given, arms_of(given)[0], {"config.rho": 0.25}, seed=3)
    assert job.entrypoint.filled(job.model_dump()) == ["--rho", "0.25"]
    assert (given.objective.metric, given.objective.mode, job.seed) == ("loss", "min", 3)


def script_study(*args, base=None, **fields):
    script = {"code": {"bundle": "sha256:" + 64 * "0"}, "entrypoint": ["train.py", *args], "best": "loss:min"}
    return StudySpec.model_validate({"base": script | (base or {}), "space": {"optimizer.base.lr": RHO}} | fields)


@pytest.mark.parametrize(
    ("args", "fields", "field"),
    [
        ([], {}, "space.optimizer.base.lr"),
        (["{optimizer.base.lr}"], {"control": True}, "control"),
        (["{optimizer.base.lr}", "{optimizer.variant}"], {"control": True}, "control"),
        (["{optimizer.rho}", "{optimizer}", "{epochs}"], {"control": True}, "control"),
    ],
)
def test_script__that_does_not_hear_of_what_trials_differ_in_is_not_searched(args, fields, field):
    with pytest.raises(ValidationError) as caught:
        script_study(*args, **fields)
    assert caught.value.errors()[0]["ctx"]["field"] == field


@pytest.mark.parametrize(
    ("args", "fields"),
    [
        (["{optimizer}", "{epochs}"], {}),
        (["{optimizer.variant}", "{optimizer.base.lr}"], {"compute": "epochs"}),
    ],
)
def test_script__that_hears_of_its_optimizer_has_control_arms(args, fields):
    given = script_study(*args, control=True, **fields)
    point = {"optimizer.base.lr": 0.03}
    arms = {arm.name: job_spec(given, arm, point, seed=1) for arm in arms_of(given)}
    filled = {name: job.entrypoint.filled(job.model_dump(mode="json")) for name, job in arms.items()}
    assert {"xsam", "sgd", "sam"} == filled.keys()
    assert all(name in args[0] for name, args in filled.items()), filled


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"base": TASK}, "objective"),
        ({"base": TASK, "objective": {"metric": "f1"}}, "objective.mode"),
        ({"objective": {"metric": "f1", "mode": "max"}}, "objective.metric"),
    ],
)
def test_objective__that_nothing_measures_is_refused(fields, field):
    with pytest.raises(ValidationError) as caught:
        study(**fields)
    assert caught.value.errors()[0]["ctx"]["field"] == field
