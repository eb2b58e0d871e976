"""The Trainer of Hugging Face with an optimizer of the family, trained with the real package."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, SequentialSampler

from tests.xsam_core.integrations.plain import (
    ACCUMULATION,
    MAX_NORM,
    ROWS_PER_BATCH,
    SHARPNESS,
    assert_follows,
    data,
    import_or_skip,
    network,
    walk,
)
from xsam_core import XSAM, ArgumentError, ClosureError

transformers = import_or_skip("transformers")
import_or_skip("accelerate")
SharpnessAwareTrainer = import_or_skip("xsam_core.integrations.hugging_face").SharpnessAwareTrainer
pytestmark = pytest.mark.filterwarnings("default")
NUM_STEPS = 8


class Rows(Dataset):
    def __len__(self) -> int:
        return len(data()[0])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        inputs, targets = data()
        return {"x": inputs[index], "labels": targets[index]}


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, x, labels):
        logits = self.network(x)
        return {"loss": nn.functional.cross_entropy(logits.float(), labels), "logits": logits}


class PerItemClassifier(Classifier):
    """As transformers' own models do: the loss is divided by the items of all micro-batches of the step."""

    def forward(self, x, labels, num_items_in_batch=None, **kwargs):
        logits = self.network(x)
        total = nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
        return {"loss": total / (len(x) if num_items_in_batch is None else num_items_in_batch), "logits": logits}


class InOrder(SharpnessAwareTrainer):
    def _get_train_sampler(self, *args):
        return SequentialSampler(self.train_dataset)


class InOrderUsual(transformers.Trainer):
    def _get_train_sampler(self, *args):
        return SequentialSampler(self.train_dataset)


def trainer_of(folder, model: nn.Module, trainer: type = InOrder, **options):
    kept = {key: options.pop(key) for key in ("optimizers",) if key in options}
    if issubclass(trainer, SharpnessAwareTrainer):
        kept["sharpness_options"] = SHARPNESS
    arguments = transformers.TrainingArguments(
        **{
            "output_dir": str(folder),
            "max_steps": NUM_STEPS,
            "per_device_train_batch_size": ROWS_PER_BATCH,
            "gradient_accumulation_steps": ACCUMULATION,
            "learning_rate": 0.02,
            "max_grad_norm": MAX_NORM,
            "lr_scheduler_type": "linear",
            "optim": "adamw_torch",
            "logging_steps": 1,
            "save_steps": 3,
            "use_cpu": True,
            "report_to": [],
            "disable_tqdm": True,
            **options,
        }
    )
    return trainer(model=model, args=arguments, train_dataset=Rows(), **kept)


def losses_of(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize("kind", [Classifier, PerItemClassifier])
def test_trainer__follows_the_plain_loop(tmp_path, kind, bf16):
    model = kind()
    trainer = trainer_of(tmp_path, model, bf16=bf16)
    trainer.train()
    expected, losses, _ = walk(NUM_STEPS, bf16=bf16, lr_factor=lambda step: max(0.0, 1 - step / NUM_STEPS))
    member = trainer.optimizer.optimizer
    assert isinstance(member, XSAM)
    assert isinstance(member.base_optimizer, torch.optim.AdamW)
    assert member.param_groups[0]["step_count"] == NUM_STEPS
    assert losses_of(trainer) == pytest.approx(losses, rel=2e-2 if bf16 else 1e-3, abs=1e-4)
    norms = [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
    assert max(norms) > MAX_NORM
    assert_follows(model.network, expected, bf16=bf16)


def test_trainer__saves_and_resumes_bit_equal(tmp_path):
    straight, resumed = Classifier(), Classifier()
    whole = trainer_of(tmp_path / "whole", straight)
    whole.train()
    trainer_of(tmp_path / "part", Classifier(), save_steps=3).train()
    again = trainer_of(tmp_path / "part", resumed)
    again.train(resume_from_checkpoint=str(tmp_path / "part" / "checkpoint-3"))
    assert losses_of(again)[-5:] == losses_of(whole)[-5:]
    for a, b in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_trainer__a_language_model_of_transformers_learns(tmp_path):
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=3
    )
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config)

    class Sentences(Dataset):
        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int) -> dict[str, list[int] | int]:
            return {"input_ids": [index % 3 + 1] * 4, "attention_mask": [1] * 4, "labels": index % 3}

    start = copy.deepcopy(model)
    trainer = trainer_of(tmp_path, model, max_steps=20, learning_rate=0.02, max_grad_norm=1.0)
    trainer.train_dataset = Sentences()
    trainer.train()
    losses = losses_of(trainer)
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    usual = trainer_of(tmp_path, start, InOrderUsual, max_steps=1)
    usual.train_dataset = Sentences()
    usual.train()
    # Whatever the Trainer makes of micro-batches and items, it is the same loss, but for dropout.
    assert losses[0] == pytest.approx(losses_of(usual)[0], rel=0.05)


def test_trainer__the_usual_one_says_what_to_do(tmp_path):
    model = Classifier()
    optimizer = XSAM(model.parameters(), torch.optim.AdamW, lr=0.1)
    with pytest.raises(ClosureError, match="add_closure"):
        trainer_of(tmp_path, model, transformers.Trainer, optimizers=(optimizer, None)).train()


def test_trainer__refuses_what_it_cannot_do(tmp_path):
    model = Classifier()
    with pytest.raises(ArgumentError, match="one of xsam_core, got SGD"):
        trainer_of(tmp_path, model, optimizers=(torch.optim.SGD(model.parameters(), lr=0.1), None))
