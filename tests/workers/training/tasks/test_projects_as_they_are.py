"""Projects of Lightning and of Hugging Face, with the real packages, by naming their classes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import DatasetDict

from tests.workers.training.runs import RankPool, WishAfter, assert_equal_weights, context_in, run, spec_of
from tests.workers.training.tasks import projects_as_they_are as projects
from xsam.workers.messages import StopReason
from xsam.workers.training.check import check
from xsam.workers.training.errors import TargetError
from xsam.workers.training.tasks.own_task import OwnTask

CODE = "tests.workers.training.tasks.projects_as_they_are"
ALLOWED = {"allowed_packages": ("tests", "transformers")}
LIT = {"target": f"{CODE}:LitPoints", "options": {"dim": 8}, "data": {"target": f"{CODE}:Points"}}
BERT = {"target": f"{CODE}:TinyBert", "options": {"config": projects.tiny_config()}}


def job(task: dict[str, Any], **fields: Any) -> Any:
    return spec_of(task=task, **{"batch_size": 20, "epochs": 2, "optimizer": {"variant": "xsam"}, **fields})


def test_lightning__trains_with_its_losses_and_its_metrics(tmp_path: Path) -> None:
    ran = run(job(LIT, epochs=20, best="val_acc:max", optimizer={"variant": "sam"}), tmp_path, **ALLOWED)
    last = ran.telemetry.epochs[-1]
    assert last.metrics.keys() == {"val_acc", "val_loss", "train/confident"}
    assert last.metrics["val_acc"] > 0.8
    assert last.eval_loss == pytest.approx(last.metrics["val_loss"])
    assert ran.outcome.summary.best_metric == "val_acc:max"
    assert set(ran.weights) == {f"layers.{n}.{part}" for n in (0, 3) for part in ("weight", "bias")}


def test_lightning__that_was_stopped_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = run(job(LIT, checkpoint={"every_steps": 2}), tmp_path / "whole", **ALLOWED)
    cut = job(LIT, checkpoint={"every_steps": 2})
    run(cut, tmp_path / "cut", WishAfter(StopReason.PREEMPT, after=4), **ALLOWED)
    assert_equal_weights(run(cut, tmp_path / "cut", **ALLOWED).weights, whole.weights)


def test_lightning__loss_runs_in_every_pass_and_says_what_is_replaced(tmp_path: Path) -> None:
    task = OwnTask(job(LIT), context_in(tmp_path, **ALLOWED))
    model = task.model()
    batch = projects.points(4, 0)
    for _ in range(3):
        loss, logged = task.loss(model, batch)
    assert loss.requires_grad
    assert logged.keys() == {"confident"}
    assert model.calls == 3
    found = check(job(LIT), context_in(tmp_path, **ALLOWED))
    assert found.error is None
    assert found.best == "loss:min"
    assert any("configure_optimizers() is replaced" in note for note in found.notes)
    assert "batch size, order and workers are the job's" in found.notes[1]


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ({"target": f"{CODE}:SelfSteppingLit", "data": LIT["data"]}, "steps its optimizers itself"),
        ({"target": f"{CODE}:MetricLit", "data": LIT["data"]}, "log a number of the batch"),
        ({"target": f"{CODE}:LitPoints"}, "LitPoints has no train_dataloader"),
        ({"target": f"{CODE}:Points"}, "without model"),
        ({**BERT, "data": {"folder": "nowhere"}}, "no folder 'nowhere'"),
        (BERT, "needs task.data"),
        ({**BERT, "options": {}, "data": {"target": f"{CODE}:splits"}}, "give one of 'pretrained'"),
        ({**BERT, "data": {"target": f"{CODE}:tiny_config"}}, "it needs train, validation or eval or test"),
        ({**BERT, "data": {"target": f"{CODE}:unlabelled"}}, "a batch needs 'labels'"),
        ({**BERT, "options": {"pretrained": "../x"}, "data": {"target": f"{CODE}:splits"}}, "no folder '../x'"),
    ],
)
def test_project__that_cannot_train_is_told_why(tmp_path: Path, task: dict[str, Any], told: str) -> None:
    found = check(job(task), context_in(tmp_path, dataset_root=tmp_path, **ALLOWED))
    assert told in str(found.error)


def test_hugging_face__trains_by_the_names_of_its_classes(tmp_path: Path) -> None:
    DatasetDict(projects.splits(None)).save_to_disk(str(tmp_path / "words"))
    task = {**BERT, "data": {"folder": "words"}}
    adam = {"variant": "sam", "base": {"name": "adamw", "lr": 0.01}}
    ran = run(
        job(task, epochs=12, best="accuracy:max", optimizer=adam), tmp_path / "run", dataset_root=tmp_path, **ALLOWED
    )
    assert ran.telemetry.epochs[-1].eval_accuracy > 0.8
    assert ran.telemetry.epochs[-1].eval_loss < ran.telemetry.epochs[0].eval_loss
    assert "distilbert.embeddings.word_embeddings.weight" in ran.weights


def test_hugging_face__starts_from_a_folder_of_weights_with_its_collator(tmp_path: Path) -> None:
    made = projects.TinyBert(projects.DistilBertConfig(**projects.tiny_config()))
    made.save_pretrained(tmp_path / "models" / "tiny")
    task = {
        "target": "transformers:AutoModelForSequenceClassification",
        "options": {"pretrained": "tiny", "num_labels": 2},
        "data": {"target": f"{CODE}:splits"},
        "collate": {"target": "transformers:DefaultDataCollator"},
    }
    context = context_in(tmp_path / "run", model_root=tmp_path / "models", **ALLOWED)
    model = OwnTask(job(task), context).model()
    for name, value in made.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert check(job(task), context).error is None


def test_lightning__on_two_ranks_ends_with_the_weights_of_one_process_with_the_whole_batch(
    tmp_path: Path, two_ranks: RankPool
) -> None:
    (tmp_path / "kept").mkdir()
    kept = {"target": f"{CODE}:KeptLit", "options": {"folder": str(tmp_path / "kept"), "dim": 8}, "data": LIT["data"]}
    first, _ = two_ranks.run(job(kept, resources={"num_workers": 2}), tmp_path / "two", **ALLOWED)
    assert first.telemetry.epochs[-1].metrics.keys() == {"val_acc", "val_loss", "train/confident"}
    own = [torch.load(tmp_path / "kept" / f"{rank}.pt") for rank in range(2)]
    assert_equal_weights(own[0], first.weights)
    assert_equal_weights(own[1], own[0])
    one = run(job(kept), tmp_path / "one", **ALLOWED)
    for name, tensor in one.weights.items():
        torch.testing.assert_close(first.weights[name], tensor, rtol=1e-4, atol=1e-6)
    for actual, expected in zip(first.telemetry.epochs, one.telemetry.epochs, strict=True):
        assert actual.train_loss == pytest.approx(expected.train_loss, rel=1e-4)
        for name in ("val_acc", "val_loss"):  # the training step logs no mean over examples
            assert actual.metrics[name] == pytest.approx(expected.metrics[name], rel=1e-4)


def test_parts_of_a_project__are_for_projects(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="are for a LightningModule or a Hugging Face model"):
        OwnTask(job({"target": f"{CODE}:splits", "collate": {"target": "x:y"}}), context_in(tmp_path, **ALLOWED))
