"""Trackers with the real packages: what they show is what the rows say, and none of them is waited for."""

import json
import logging
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import wandb
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record

from xsam.services.metrics.records import AlphaRecord, EpochRecord
from xsam.services.settings import TrackerSettings
from xsam.services.specs.job import JobSpec
from xsam.workers.messages import StartedRecord
from xsam.workers.runner.trackers import tracking
from xsam.workers.runner.trackers.sink import Ended, TrackedRun
from xsam.workers.runner.trackers.tracking import Trackers, sinks_of


def epoch(number: int, loss: float = 0.5) -> EpochRecord:
    return EpochRecord(number, 10 * number, loss, 0.8, loss / 2, 0.9, 0.1, 1.0, 100.0, 20, 0, {"f1": 0.7})


ALPHA = AlphaRecord(1, 1, 1.5, 0.2, (0.0, 1.0, 2.0), (0.1, 0.2, 0.1))


class Runs:
    """Attempts of one job, each with trackers."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self._folder = folder
        self._settings = TrackerSettings(**settings)

    def attempt(self, *reports: Any, first_step: int = 1, ended: Ended = Ended.FINISHED) -> Trackers:
        def run(step: int) -> TrackedRun:
            spec = JobSpec(name="mine").model_dump(mode="json")
            return TrackedRun("4yvyyvwh3t7x", "mine", "red", spec, self._folder, step)

        trackers = Trackers(run, sinks_of(self._settings))
        for report in (StartedRecord(10, first_step, 1, 100), *reports):
            trackers.put(report)
        thread = trackers._thread
        trackers.close(ended)
        assert thread is not None
        thread.join()  # a tracker's last word is what is looked at
        return trackers


def test_tensorboard__shows_each_epoch_once_also_after_a_kill(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.attempt(ALPHA, epoch(1), epoch(2), epoch(3, loss=9.0), ended=Ended.STOPPED)
    runs.attempt(epoch(3), first_step=21)  # the checkpoint was that of epoch 2
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(one.step, one.value) for one in found.Scalars("loss/train")] == [(10, 0.5), (20, 0.5), (30, 0.5)]
    assert {"f1", "accuracy/eval", "alpha/alpha", "lr", "grad_evals"} <= set(found.Tags()["scalars"])
    assert len(list((tmp_path / "tensorboard").glob("events.*"))) == 2


def test_mlflow__has_one_run_for_a_job_with_its_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    runs = Runs(tmp_path / "job", tensorboard=False, mlflow_uri=uri)
    runs.attempt(epoch(1), ended=Ended.STOPPED)
    runs.attempt(epoch(2), first_step=11)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("xsam")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.run_name, run.data.tags["xsam.job"]) == ("FINISHED", "mine", "4yvyyvwh3t7x")
    assert run.data.params["optimizer.variant"] == "xsam"
    assert [one.step for one in client.get_metric_history(run.info.run_id, "loss/eval")] == [10, 20]
    assert run.data.metrics["f1"] == 0.7


def _wandb_records(written: bytes) -> Iterator[Record]:
    """Read a file of W&B's: seven bytes of header, then checksum, length, kind and payload of each record."""
    assert len(written) < 32_768, "records of longer files go over blocks"
    at = 7
    while at < len(written):
        _, length, _ = struct.unpack_from("<IHB", written, at)
        at += 7 + length
        yield Record.FromString(written[at - length : at])


def test_wandb__offline_lies_beside_the_job(tmp_path: Path) -> None:
    Runs(tmp_path, tensorboard=False, wandb="offline").attempt(epoch(1), epoch(2))
    wandb.teardown()  # its own process writes the file, the last of it after a run has finished; this waits for its end
    (written,) = tmp_path.glob("wandb/offline-run-*-4yvyyvwh3t7x/run-4yvyyvwh3t7x.wandb")
    records = list(_wandb_records(written.read_bytes()))
    rows = [
        {".".join(one.nested_key) or one.key: json.loads(one.value_json) for one in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    assert [(row["step"], row["loss/eval"]) for row in rows] == [(10, 0.25), (20, 0.25)]
    assert records[-1].WhichOneof("record_type") == "exit", "the run has ended, nothing is written after it"
    assert b"xsam_core" not in written.read_bytes()
    assert not (tmp_path / "tensorboard").exists()


class SlowSink:
    """A tracker that does not answer."""

    may_go_on = threading.Event()

    def __init__(self, run: TrackedRun) -> None:
        self.told: list[int] = []

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.may_go_on.wait(60)

    def end(self, ended: Ended) -> None: ...


class BrokenSink(SlowSink):
    """A tracker that fails at everything."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        raise ConnectionError("no such server")


def _run(step: int) -> TrackedRun:
    return TrackedRun("4yvyyvwh3t7x", "mine", "red", {}, Path(), step)


def test_trackers__that_do_not_answer_keep_nobody_waiting(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "CLOSE_S", 0.05)
    trackers = Trackers(_run, {"slow": SlowSink})
    began = time.perf_counter()
    trackers.put(StartedRecord(10, 1, 1, 100))
    for number in range(2 * tracking.MAX_WAITING):
        trackers.put(epoch(number + 1))
    trackers.close(Ended.FINISHED)
    assert time.perf_counter() - began < 5.0
    assert [one.message for one in caplog.records if "miss what follows" in one.message] == [
        f"trackers are {tracking.MAX_WAITING} reports behind and miss what follows; rows have all of it"
    ]
    SlowSink.may_go_on.set()


def test_tracker__that_fails_is_named_once_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(run: TrackedRun) -> SlowSink:
        raise ModuleNotFoundError("No module named 'nowhere'")

    run = TrackedRun("4yvyyvwh3t7x", "mine", "red", {}, tmp_path, 1)
    makers = {"broken": BrokenSink, "missing": missing, **sinks_of(TrackerSettings())}
    trackers = Trackers(lambda step: run, makers)
    for report in (StartedRecord(10, 1, 1, 100), epoch(1), epoch(2)):
        trackers.put(report)
    trackers.close(Ended.FINISHED)
    errors = [one.message for one in caplog.records if one.levelno >= logging.ERROR]
    assert errors == [
        "missing can't be told of job 4yvyyvwh3t7x; rows have everything",
        "broken is told no more of this job; rows have everything",
    ]
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [one.step for one in found.Scalars("f1")] == [10, 20]
