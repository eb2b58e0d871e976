"""Somebody's own project from its folder to its weights, on a real service."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.e2e import own_project
from tests.support.served import Served, served, wait_until
from xsam.api.client import Client
from xsam.services.jobs.schemas import JobRead
from xsam.services.jobs.states import is_terminal

OWN_LOOP = Path(__file__).parents[2] / "deploy" / "examples" / "own_loop"
pytestmark = [pytest.mark.e2e, pytest.mark.ray, pytest.mark.slow]


TUNE_SCRIPT = """
import sys
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from xsam.sdk import service_trainable

url, folder, epochs = sys.argv[1], sys.argv[2], int(sys.argv[3])
optimizer = {"variant": "sam", "base": {"name": "sgd"}}
# Small batches: an epoch takes longer than Tune to stop a trial.
base = {"optimizer": optimizer, "model": {"name": "mlp"}, "batch_size": 8, "epochs": epochs, "name": "of-tune"}
trainable = service_trainable(url, base)
if tune.Tuner.can_restore(f"{folder}/search"):
    tuner = tune.Tuner.restore(f"{folder}/search", trainable)
else:
    tuner = tune.Tuner(
        trainable,
        param_space={"optimizer.base.lr": tune.grid_search([0.05, 1e-07])},
        tune_config=tune.TuneConfig(
            metric="accuracy", mode="max", max_concurrent_trials=1,
            scheduler=ASHAScheduler(time_attr="epoch", grace_period=2, max_t=epochs, reduction_factor=2),
        ),
        run_config=tune.RunConfig(name="search", storage_path=folder, verbose=0),
    )
for result in tuner.fit():
    print("result", result.config["optimizer.base.lr"], result.metrics["job_id"], result.metrics["epoch"], result.error)
"""
"""Of somebody who has Tune already; started again, it goes on."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("own-project")
    environment = {
        **os.environ,
        "XSAM_CODE__INDEX": str(folder / "wheels"),
        "XSAM_CODE__NODE_DIR": str(folder / "node"),
        "XSAM_SCHEDULING__MIN_RUN_TIME_S": "0",
    }
    (folder / "wheels").mkdir()
    with served(folder / "data", "--num-cpus", "2", environment=environment) as running:
        yield running


@pytest.fixture
def client(service: Served) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client


def command(service: Served, *words: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-m", "xsam.api", *words, "--url", service.url],
        capture_output=True,
        text=True,
        cwd=service.data_dir.parent,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done


def submitted(client: Client, done: "subprocess.CompletedProcess[str]") -> JobRead:
    newest = next(iter(client.list()))
    assert newest.id in done.stdout
    return newest


def weights(client: Client, job_id: str, folder: Path) -> dict[str, torch.Tensor]:
    client.download(job_id, "weights/last.safetensors", folder / f"{job_id}.safetensors")
    return load_file(folder / f"{job_id}.safetensors")


def finished(client: Client, job_id: str) -> JobRead:
    job = client.wait(job_id, timeout_s=240)
    assert job.state == "succeeded", job.failure
    return job


def reach_epoch(client: Client, job_id: str, epoch: int) -> None:
    """Wait for an epoch; a job that ends before it fails at once."""

    def has_come() -> bool:
        job = client.get(job_id)
        assert job.progress.epochs_done >= epoch or not is_terminal(job.state), job.failure
        return job.progress.epochs_done >= epoch

    wait_until(has_come)


def finish_study(client: Client, study_id: str) -> None:
    """Wait for a study's end, which must be a good one."""
    wait_until(lambda: is_terminal(client.studies.get(study_id).state))
    study = client.studies.get(study_id)
    assert study.state == "succeeded", study.failure


def test_project__is_submitted_with_its_packages_preempted_and_resumed(
    service: Served, client: Client, tmp_path: Path
) -> None:
    file = own_project.write(tmp_path / "project", service.data_dir.parent / "wheels")
    first = command(service, "submit", str(file))
    assert "Left out, since they look like secrets: .env" in first.stderr
    assert "Locked 1 packages: tinyloss==1.0" in first.stderr
    assert "Uploaded 6 files" in first.stderr
    whole = submitted(client, first)
    assert whole.spec.requirements is not None
    finished(client, whole.id)

    second = command(service, "submit", str(file), "--set", "name=cut")
    assert "Uploaded" not in second.stderr, "the service has every byte of it"
    cut = submitted(client, second)
    reach_epoch(client, cut.id, 3)
    client.submit({"name": "urgent", "priority": 50, "epochs": 1, "resources": {"num_workers": 2}})
    job = finished(client, cut.id)
    assert job.attempt == 2
    assert "preempting" in [event.kind for event in client.events(cut.id)]
    assert [row.epoch for row in client.metrics(cut.id)] == list(range(1, 26))
    expected = weights(client, whole.id, tmp_path)
    for name, tensor in weights(client, cut.id, tmp_path).items():
        assert torch.equal(tensor, expected[name]), name


def test_project__is_studied_promoted_and_pulled(service: Served, client: Client, tmp_path: Path) -> None:
    file = own_project.write(tmp_path / "project", service.data_dir.parent / "wheels")
    locked, _ = client.requirements.resolve(yaml.safe_load(file.read_text()), file.parent)
    base, _ = client.bundles.resolve({**locked, "epochs": 2, "best": "f1:max"}, file.parent)
    space = {"task.options.dim": {"type": "choice", "values": [8, 16]}}
    study = client.studies.submit(
        {"base": base, "space": space, "sampler": {"name": "grid"}, "concurrency": 1, "confirm_seeds": 0}
    )
    finish_study(client, study.id)
    winner = client.studies.promote(study.id, changes={"epochs": 3})
    assert (winner.spec.code, winner.spec.requirements) == (study.spec.base.code, study.spec.base.requirements)
    finished(client, winner.id)

    command(service, "pull", winner.id, "--folder", str(tmp_path / "pulled"))
    card = json.loads((tmp_path / "pulled" / "model-card.json").read_text())
    assert card["packages"] == ["tinyloss==1.0"]
    assert card["bundle"]["id"] == base["code"]["bundle"]
    assert list((tmp_path / "pulled" / "tensorboard").glob("events.*"))
    task = winner.spec.task
    assert task is not None
    code = (
        "import sys, safetensors.torch, torch; from api.task import TwoHeads\n"
        "net = TwoHeads(int(sys.argv[2])); net.load_state_dict(safetensors.torch.load_file(sys.argv[1]))\n"
        "print(net(torch.zeros(1, 8))[0].shape)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "pulled/weights/best.safetensors"), str(task.options["dim"])],
        capture_output=True,
        text=True,
        cwd=tmp_path / "project",
        env={**os.environ, "PYTHONPATH": str(service.data_dir.parent / "wheels" / "tinyloss-1.0-py3-none-any.whl")},
        check=False,
    )
    assert loaded.stdout.strip() == "torch.Size([1, 2])", loaded.stderr


def test_script__is_searched_by_its_arguments_preempted_and_cancelled(service: Served, client: Client) -> None:
    script = {"code": str(OWN_LOOP), "entrypoint": ["train.py", "--lr", "{config.lr}"], "best": "accuracy:max"}
    base, _ = client.bundles.resolve({**script, "config": {"lr": 0.1, "epochs": 2}, "epochs": 2}, Path())
    space = {"config.lr": {"type": "choice", "values": [0.01, 0.1]}}
    study = client.studies.submit({"base": base, "space": space, "sampler": {"name": "grid"}, "concurrency": 1})
    finish_study(client, study.id)
    values = [(trial.params["config.lr"], trial.value) for trial in client.studies.trials(study.id)]
    assert {lr for lr, _ in values} == {0.01, 0.1}
    assert len({value for _, value in values}) == 2, "the argument has reached the script"

    long = client.submit({**base, "config": {"lr": 0.1, "epochs": 300}, "epochs": 300})
    reach_epoch(client, long.id, 2)
    client.submit({"name": "urgent", "priority": 50, "epochs": 1, "resources": {"num_workers": 2}})
    wait_until(lambda: client.metrics(long.id)[-1].attempt == 2)
    client.cancel(long.id)
    assert client.wait(long.id, timeout_s=120).state == "cancelled"
    rows = client.metrics(long.id)
    assert [row.epoch for row in rows] == list(range(1, len(rows) + 1))
    assert {row.attempt for row in rows} == {1, 2}
    assert len(client.alphas(long.id)) >= len(rows)


def test_tune_script__stops_trials_and_finds_its_jobs_again(service: Served, client: Client, tmp_path: Path) -> None:
    script = tmp_path / "search.py"
    script.write_text(TUNE_SCRIPT)
    words = [sys.executable, str(script), service.url, str(tmp_path), "12"]
    environment = {**os.environ, "RAY_AIR_NEW_OUTPUT": "0"}
    killed = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        wait_until(lambda: any(job.progress.epochs_done >= 1 for job in client.list(name="of-tune")))
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    time.sleep(1)
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=280, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    results = {line.split()[1]: line.split()[2:] for line in done.stdout.splitlines() if line.startswith("result")}
    jobs = {str(job.spec.optimizer.base.lr): job for job in client.list(name="of-tune")}
    assert len(list(client.list(name="of-tune"))) == 2, "a restored Tuner makes no new jobs"
    assert {rho: job.id for rho, job in jobs.items()} == {rho: found[0] for rho, found in results.items()}
    assert results["0.05"][1:] == ["12", "None"]
    assert jobs["0.05"].state == "succeeded"
    stopped = client.wait(jobs["1e-07"].id, timeout_s=60)
    assert (stopped.state, results["1e-07"][1]) == ("cancelled", "2"), "ASHA ends what does not learn"
