"""A job's script in a rank: its arguments, its reports as rows, how it stops and goes on."""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.bundles import packed
from tests.workers.training.runs import Recorder, WishAfter, context_in
from xsam.services.specs.job import JobSpec
from xsam.services.stores.store import StorePlace
from xsam.workers.messages import Assignment, StopReason
from xsam.workers.rank.code import with_code
from xsam.workers.rank.script import run_script
from xsam.workers.training.errors import TargetError, TrainingError
from xsam.workers.training.loop import TrainingOutcome

OWN_LOOP = Path(__file__).parents[3] / "deploy" / "examples" / "own_loop"
CODE = {"bundle": "sha256:" + 64 * "0"}


@pytest.fixture(autouse=True)
def _process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before, folder, threads = dict(os.environ), Path.cwd(), torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    os.chdir(folder)
    torch.set_num_threads(threads)
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def run(
    code_dir: Path,
    folder: Path,
    control: WishAfter | None = None,
    *,
    bucket: StorePlace | None = None,
    **fields: Any,
) -> tuple[TrainingOutcome, Recorder]:
    spec = JobSpec.model_validate({"code": CODE, **fields})
    context = replace(context_in(folder), code_dir=code_dir, bucket=bucket)
    telemetry = Recorder()
    outcome = run_script(Assignment("job1", 1, spec, context, folder), telemetry, control or WishAfter())
    return outcome, telemetry


def script(tmp_path: Path, text: str) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text(text)
    return tmp_path / "code"


def test_script__reports_epochs_alphas_and_checkpoints(tmp_path: Path) -> None:
    given = {"entrypoint": ["train.py", "--lr", "{config.lr}"], "config": {"lr": 0.1, "epochs": 3}}
    outcome, seen = run(OWN_LOOP, tmp_path, best="accuracy:max", **given)
    assert [(record.epoch, record.step) for record in seen.epochs] == [(1, 16), (2, 32), (3, 48)]
    assert [record.step for record in seen.alphas] == [1, 17, 33]
    assert [record.step for record in seen.checkpoints] == [16, 32, 48]
    assert seen.epochs[-1].grad_evals == 2 * 48
    assert seen.epochs[0].lr == 0.1
    assert outcome.stopped_by is None
    assert outcome.summary.best_accuracy == max(record.eval_accuracy for record in seen.epochs)
    assert len(seen.first_steps) == 1


def test_script__that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    given = {"entrypoint": "train.py", "config": {"epochs": 3}}
    _, whole = run(OWN_LOOP, tmp_path / "whole", **given)
    first, _ = run(OWN_LOOP, tmp_path / "parts", WishAfter(StopReason.PREEMPT, after=20), **given)
    rest, second = run(OWN_LOOP, tmp_path / "parts", **given)
    assert (first.stopped_by, first.summary.epochs, first.summary.step) == ("preempt", 1, 20)
    assert (second.starts[0].first_step, second.starts[0].first_epoch) == (21, 2)
    assert rest.summary.epochs == 3
    last, expected = second.epochs[-1], whole.epochs[-1]
    assert (last.train_loss, last.eval_accuracy, last.grad_evals) == (
        *(expected.train_loss, expected.eval_accuracy),
        expected.grad_evals,
    )


def test_script__goes_on_out_of_a_bucket_on_another_node(tmp_path: Path, bucket_place: StorePlace) -> None:
    given = {"entrypoint": "train.py", "config": {"epochs": 3}}
    _, whole = run(OWN_LOOP, tmp_path / "whole", **given)
    nodes = [replace(bucket_place, root=tmp_path / name) for name in "ab"]
    stop = WishAfter(StopReason.PREEMPT, after=20)
    _, first = run(OWN_LOOP, nodes[0].root / "jobs" / "job1", stop, bucket=nodes[0], **given)
    _, second = run(OWN_LOOP, nodes[1].root / "jobs" / "job1", bucket=nodes[1], **given)
    assert second.starts[0].first_step == 21
    assert [record.step for record in first.checkpoints + second.checkpoints] == [16, 20, 32, 48]
    assert second.epochs[-1].train_loss == whole.epochs[-1].train_loss
    names = bucket_place.open().names("jobs/job1/checkpoints")
    assert list(names) == ["step-000000032", "step-000000048"]


def test_function__is_called_with_torchruns_variables(tmp_path: Path) -> None:
    text = (
        "import os\nfrom xsam.sdk import start\n"
        "def main():\n"
        "    run = start(size=3)\n"
        "    names = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR')\n"
        "    assert [os.environ[n] for n in names] == ['0', '1', '0', '127.0.0.1'], dict(os.environ)\n"
        "    run.report(step=1, epoch=1, loss=run.config['size'], eval_loss=2, f1=0.5)\n"
    )
    outcome, seen = run(script(tmp_path, text), tmp_path, entrypoint="train:main", best="f1:max", config={"size": 4})
    assert (seen.epochs[0].train_loss, seen.epochs[0].eval_loss, seen.epochs[0].metrics) == (4.0, 2.0, {"f1": 0.5})
    assert (outcome.summary.best_metric, outcome.summary.best_value) == ("f1:max", 0.5)


def test_script__has_the_jobs_epochs_and_draws_by_its_seed(tmp_path: Path) -> None:
    text = (
        "import random, numpy, torch\nfrom xsam.sdk import start\nrun = start()\n"
        "drawn = [random.random(), numpy.random.rand(), torch.rand(()).item()]\n"
        "run.report(step=1, epoch=1, loss=0, a=drawn[0], b=drawn[1], c=drawn[2], epochs=run.epochs, seed=run.seed)\n"
    )
    folder = script(tmp_path, text)
    drawn = [
        run(folder, tmp_path / str(number), entrypoint="train.py", epochs=7, seed=seed)[1].epochs[0].metrics
        for number, seed in enumerate((3, 3, 4))
    ]
    assert drawn[0] == drawn[1]
    assert (drawn[0]["epochs"], drawn[0]["seed"], drawn[2]["seed"]) == (7, 3, 4)
    assert not [name for name in "abc" if drawn[0][name] == drawn[2][name]]


@pytest.mark.parametrize(
    ("text", "entrypoint", "error", "message"),
    [
        ("raise SystemExit(3)", "train.py", TrainingError, "ended with status 3"),
        ("1 / 0", "train.py", ZeroDivisionError, "division"),
        ("", "other.py", TargetError, "no such file"),
        ("main = 3", "train:main", TargetError, "no function 'main'"),
    ],
)
def test_script__that_fails_is_told(
    text: str, entrypoint: str, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "train", raising=False)
    with pytest.raises(error, match=message):
        run(script(tmp_path, text), tmp_path, entrypoint=entrypoint)


def test_code__is_unpacked_and_comes_first_on_the_path(tmp_path: Path) -> None:
    bundle = packed({"src/acme_first/__init__.py": "", "notes.txt": "x"})
    (tmp_path / "b").write_bytes(bundle.packed)
    spec = JobSpec.model_validate({"code": {"bundle": bundle.id, "root": "src"}, "entrypoint": "train.py"})
    places = {"place": StorePlace(tmp_path), "code_file": "b", "code_root": tmp_path / "node"}
    given = Assignment("job1", 1, spec, context_in(tmp_path), tmp_path, **places)
    assert with_code(given).context.code_dir == Path(sys.path[0])
    assert (Path(sys.path[0]) / "acme_first").is_dir()
    wrong = spec.model_copy(update={"code": spec.code.model_copy(update={"root": "gone"})})
    with pytest.raises(TargetError, match=r"code.root is 'gone'"):
        with_code(replace(given, spec=wrong))
