"""Studies on a real local Ray cluster: trials in the queue, ranks, verdicts, rows."""

import time

import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group

from tests.support.live_studies import LONG, SLOW, TINY, LiveStudies
from xsam.services.artifacts.store import JobFolder
from xsam.services.jobs import wishes
from xsam.services.jobs.states import FailureKind, JobState
from xsam.services.studies import verbs
from xsam.services.studies.spec import StudySpec
from xsam.workers.studies.samplers import make_sampler

pytestmark = pytest.mark.ray


def test_study__runs_all_trials_and_stores_them_like_jobs(studies: LiveStudies) -> None:
    study_id = studies.submit()
    job = studies.finish(study_id)
    live = studies.live
    assert (job.state, job.summary["ended_by"]) == (JobState.SUCCEEDED, "finished")
    trials = studies.trials(study_id)
    assert [trial.state for trial in trials] == [JobState.SUCCEEDED] * 6
    assert len({trial.point["optimizer.rho"] for trial in trials}) == 6
    for trial in trials:
        epochs = live.epochs(trial.job_id)
        assert [row.epoch for row in epochs] == [1, 2, 3]
        assert trial.value == max(row.eval_accuracy for row in epochs)
        assert trial.grad_evals == epochs[-1].grad_evals == 2 * 3 * 8
        assert [row.epoch for row in live.alphas(trial.job_id)] == [1, 2, 3]
        assert live.job(trial.job_id).attempt == 1, live.event_kinds(trial.job_id)
        assert live.job(trial.job_id).spec["optimizer"]["rho"] == trial.point["optimizer.rho"]
        folder = JobFolder(live.settings.artifact_root, trial.job_id)
        assert (folder.path / "weights" / "best.safetensors").is_file()
        assert folder.logs(1).is_dir()
    assert job.summary["best_value"] == max(trial.value for trial in trials if trial.value is not None)
    live.turn_until(live.all_resources_are_free)


def test_asha__stops_trials_early_and_their_rows_end_where_they_were_stopped(studies: LiveStudies) -> None:
    base = {**TINY["base"], "epochs": 9, "dataset": {"name": "digits", "train_size": 256}}
    study_id = studies.submit(
        base=base,
        num_trials=8,
        space={"optimizer.base.lr": {"type": "choice", "values": [0.1, 0.05, 1e-4, 2e-4, 3e-4, 4e-4, 5e-4, 6e-4]}},
        sampler={"name": "grid"},
        early_stopping={"name": "asha", "grace": 1 / 9, "reduction_factor": 3},
    )
    assert studies.finish(study_id).state == JobState.SUCCEEDED
    trials = studies.trials(study_id)
    stopped = [trial for trial in trials if trial.is_stopped_early]
    assert len(stopped) >= 4
    assert all(trial.state is JobState.SUCCEEDED for trial in trials)
    for trial in trials:
        num_epochs = len(studies.live.epochs(trial.job_id))
        assert num_epochs in ((1, 3) if trial.is_stopped_early else (9,))
    assert max(trials, key=lambda trial: trial.value or 0).point["optimizer.base.lr"] in (0.1, 0.05)


def test_cma_es_under_hyperband__draws_what_it_should_and_stops_at_rungs(studies: LiveStudies) -> None:
    base = {**TINY["base"], "epochs": 9, "dataset": {"name": "digits", "train_size": 256}}
    fields = {
        "num_trials": 9,
        "concurrency": 1,  # then the order of draws and results is one, and can be repeated here
        "space": {
            "optimizer.rho": {"type": "log_uniform", "low": 0.01, "high": 0.2},
            "optimizer.base.lr": {"type": "log_uniform", "low": 1e-4, "high": 0.1},
        },
        "sampler": {"name": "cma_es", "startup_trials": 3},
        "early_stopping": {"name": "hyperband", "grace": 1 / 9, "reduction_factor": 3, "brackets": 2},
    }
    study_id = studies.submit(base=base, **fields)
    assert studies.finish(study_id).state == JobState.SUCCEEDED
    trials = sorted(studies.trials(study_id), key=lambda trial: trial.number)
    assert [trial.state for trial in trials] == [JobState.SUCCEEDED] * 9
    spec = StudySpec.model_validate({**TINY, "base": base, **fields})
    sampler = make_sampler(spec.sampler, spec.space, "max", [])
    for trial in trials:
        assert trial.point == sampler.propose(trial.config)
        sampler.tell(trial.config, trial.value)
    lengths = [len(studies.live.epochs(trial.job_id)) for trial in trials]
    assert [length < 9 for length in lengths] == [trial.is_stopped_early for trial in trials]
    assert set(lengths) <= {1, 3, 9}
    assert any(trial.is_stopped_early for trial in trials)


def test_two_worker_trials__share_one_alpha_each(studies: LiveStudies) -> None:
    base = {**TINY["base"], "resources": {"num_workers": 2}}
    study_id = studies.submit(base=base, num_trials=2, concurrency=1)
    assert studies.finish(study_id).state == JobState.SUCCEEDED
    for trial in studies.trials(study_id):
        folder = JobFolder(studies.live.settings.artifact_root, trial.job_id)
        assert {path.name for path in folder.logs(1).iterdir()} == {"rank-0.log", "rank-1.log"}
        assert len(studies.live.alphas(trial.job_id)) == 3


def test_killed_runner__study_goes_on_where_it_was(studies: LiveStudies) -> None:
    study_id = studies.submit(base=LONG, num_trials=4)
    studies.reach(study_id, 1)
    with studies.held_at_epoch(study_id, 2) as running:
        finished = {trial.job_id for trial in studies.in_state(study_id, JobState.SUCCEEDED)}
        studies.kill_runner(study_id)
    job = studies.finish(study_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    trials = studies.trials(study_id)
    assert len(trials) == 4
    assert len({trial.point["optimizer.rho"] for trial in trials}) == 4
    assert all(studies.live.job(trial_id).attempt == 1 for trial_id in finished)
    resumed = studies.live.job(running[0].job_id)
    assert resumed.attempt == 2
    assert [row.epoch for row in studies.live.epochs(resumed.id)] == list(range(1, LONG["epochs"] + 1))
    assert any(row.attempt == 1 for row in studies.live.epochs(resumed.id))
    studies.live.turn_until(studies.live.all_resources_are_free)


def test_killed_rank__costs_no_trial_of_a_judged_study(studies: LiveStudies) -> None:
    study_id = studies.submit(base=LONG, num_trials=3, early_stopping={"name": "asha", "grace": 0.9})
    caught = studies.reach_epoch(study_id, 2)
    ray.kill(studies.live.dispatcher.ranks_of(caught[0].job_id)[0])
    assert studies.finish(study_id).state == JobState.SUCCEEDED
    assert [trial.state for trial in studies.trials(study_id)] == [JobState.SUCCEEDED] * 3
    outcomes = [attempt.outcome for attempt in studies.live.attempts(caught[0].job_id)]
    assert outcomes == [FailureKind.INFRASTRUCTURE, "succeeded"]


def test_trials__whose_place_ray_does_not_give_wait_without_losing_attempts(
    studies: LiveStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else has the CPUs for longer than a lease lasts, and the dispatcher does not know it yet."""
    live = studies.live
    monkeypatch.setattr(live.dispatcher._holdings, "look", lambda capacity: {})
    foreign = placement_group([{"CPU": 2}], name="somebody's")
    assert foreign.wait(30)
    try:
        study_id = studies.submit(num_trials=2)
        studies.reach(study_id, 2, JobState.RUNNING)
        until = time.monotonic() + 1.4 * live.settings.dispatcher.lease_s
        live.turn_until(lambda: time.monotonic() > until)
        waiting = studies.trials(study_id)
        assert [trial.state for trial in waiting] == [JobState.RUNNING] * 2
        live.turn_until(lambda: all("not_placed" in live.event_kinds(trial.job_id) for trial in waiting))
    finally:
        remove_placement_group(foreign)
    assert studies.finish(study_id).state == JobState.SUCCEEDED
    for trial in studies.trials(study_id):
        outcomes = [attempt.outcome for attempt in live.attempts(trial.job_id)]
        assert (outcomes[0], outcomes[-1]) == ("not_placed", "succeeded")
        assert set(outcomes) == {"not_placed", "succeeded"}


def test_pause__lets_running_trials_finish_and_resume_goes_on(studies: LiveStudies) -> None:
    study_id = studies.submit(base=LONG, num_trials=3)
    studies.reach_epoch(study_id, 1, num=2)
    studies.tell(verbs.pause, study_id)
    studies.live.turn_until(lambda: studies.rows(study_id)[0].state == JobState.PAUSED)
    assert [trial.state for trial in studies.trials(study_id)] == [JobState.SUCCEEDED] * 2
    studies.tell(verbs.resume, study_id)
    assert studies.finish(study_id).state == JobState.SUCCEEDED
    assert len(studies.in_state(study_id, JobState.SUCCEEDED)) == 3


def test_cancel__ends_everything_in_seconds_and_gives_the_cluster_back(studies: LiveStudies) -> None:
    study_id = studies.submit(base=SLOW)
    studies.reach_epoch(study_id, 1, num=2)
    told_at = time.monotonic()
    studies.tell(verbs.cancel, study_id)
    studies.live.turn_until(lambda: studies.rows(study_id)[0].state == JobState.CANCELLED)
    assert time.monotonic() - told_at < 30  # seconds, on a machine that does other work besides
    assert {trial.state for trial in studies.trials(study_id)} == {JobState.CANCELLED}
    studies.live.turn_until(studies.live.all_resources_are_free)


def test_stop_extend_and_retry__after_the_end(studies: LiveStudies) -> None:
    study_id = studies.submit(base=LONG, num_trials=30)
    studies.reach_epoch(study_id, 1, num=2)
    studies.tell(verbs.stop, study_id)
    job = studies.finish(study_id)
    assert (job.state, job.summary["ended_by"]) == (JobState.SUCCEEDED, "stop")
    assert len(studies.in_state(study_id, JobState.SUCCEEDED)) == 2
    studies.tell(verbs.extend, study_id, num_trials=2)
    studies.reach(study_id, 4)
    trials = studies.in_state(study_id, JobState.SUCCEEDED)
    assert len(trials) == len({trial.point["optimizer.rho"] for trial in trials})
    studies.tell(verbs.cancel, study_id)
    assert studies.finish(study_id).state == JobState.CANCELLED


def test_failing_trials__end_the_study_at_the_limit_with_the_cause(studies: LiveStudies) -> None:
    base = {**TINY["base"], "dataset": {"name": "image_folder", "folder": "nowhere"}}
    study_id = studies.submit(base=base, num_trials=20, max_failures=3)
    job = studies.finish(study_id)
    assert job.state == JobState.FAILED
    assert "trials failed, the limit is 3" in job.failure_message
    assert "nowhere" in job.failure_message
    assert len(studies.in_state(study_id, JobState.FAILED)) >= 3
    assert len(studies.trials(study_id)) <= 5


def test_study__shrinks_for_a_job_of_higher_priority_and_grows_again(studies: LiveStudies) -> None:
    study_id = studies.submit(base=LONG, num_trials=200)  # more than end beside the job
    studies.reach(study_id, 2, JobState.RUNNING)
    job_id = studies.live.submit(**{**LONG, "epochs": 15}, priority=10)
    studies.live.turn_until(lambda: studies.live.job(job_id).state == JobState.RUNNING)
    most_beside_it = 0
    while True:
        studies.live.dispatcher.turn()
        beside_it = len(studies.in_state(study_id, JobState.RUNNING))
        if studies.live.job(job_id).state != JobState.RUNNING:
            break  # it may have ended before the trials were counted
        most_beside_it = max(most_beside_it, beside_it)
        time.sleep(0.05)
    assert most_beside_it == 1
    studies.reach(study_id, 2, JobState.RUNNING)
    studies.tell(verbs.cancel, study_id)
    assert studies.finish(study_id).state == JobState.CANCELLED


def test_study_of_500_trials__does_not_keep_another_team_waiting(studies: LiveStudies) -> None:
    study_id = studies.submit(num_trials=500)
    studies.reach(study_id, 2, JobState.RUNNING)
    before = len(studies.in_state(study_id, JobState.SUCCEEDED))
    job_id = studies.live.submit(team="speech", epochs=2, optimizer={"variant": "sgd"})
    studies.live.turn_until(lambda: studies.live.job(job_id).state == JobState.SUCCEEDED)
    assert len(studies.in_state(study_id, JobState.SUCCEEDED)) - before < 50
    studies.tell(verbs.cancel, study_id)
    assert studies.finish(study_id).state == JobState.CANCELLED


def test_preempted_trial__gives_its_place_and_resumes_from_its_checkpoint(studies: LiveStudies) -> None:
    study_id = studies.submit(base=LONG, num_trials=2)
    caught = studies.reach_epoch(study_id, 2)[0]
    with studies.live.database.unit_of_work() as session:
        assert wishes.request_preemption(session, caught.job_id, reason="somebody needs its place")
    studies.finish(study_id)
    outcomes = [attempt.outcome for attempt in studies.live.attempts(caught.job_id)]
    assert outcomes == [FailureKind.PREEMPTED, "succeeded"]
    assert [row.epoch for row in studies.live.epochs(caught.job_id)] == list(range(1, LONG["epochs"] + 1))


def test_control_arms__run_on_the_same_compute_and_are_confirmed(studies: LiveStudies) -> None:
    study_id = studies.submit(control=True, num_trials=2, confirm_seeds=2, base={**TINY["base"], "epochs": 4})
    assert studies.finish(study_id).state == JobState.SUCCEEDED
    trials = studies.trials(study_id)
    assert {trial.grad_evals for trial in trials} == {2 * 4 * 8}
    confirmed = [trial for trial in trials if trial.phase == "confirm"]
    assert sorted((trial.arm) for trial in confirmed) == ["sam"] * 2 + ["sgd"] * 2 + ["xsam"] * 2
