"""Tasks as a team would write them; the service imports them by name."""

import random

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils.data import Dataset, IterableDataset

from xsam.workers.sdk import collect, groups, mean, ratio, task

NUM_TRAIN, NUM_EVAL = 100, 21


def rows(number: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(number, 6, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] - 2 * x[:, 1] + 0.5 > 0).long()


class Noisy(Dataset):
    """Items of a dict, with random augmentation from three generators."""

    def __init__(self, number: int, seed: int, *, is_random: bool) -> None:
        self.x, self.y = rows(number, seed)
        self.is_random = is_random

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict:
        noise = random.random() + torch.rand(()) if self.is_random else 0.0
        return {"x": self.x[index] + 0.1 * noise, "y": self.y[index]}


class Rows:
    """Two heads, dropout, own collate, F1 from everything collected, two evaluation sets, param groups."""

    best = "f1:max"

    def __init__(self, data_root, seed, dim: int = 8, stream: bool = False) -> None:
        self.dim, self.stream = dim, stream
        self.epochs: list[int] = []

    def model(self):
        return nn.Sequential(nn.Linear(6, self.dim), nn.ReLU(), nn.Dropout(0.2), nn.Linear(self.dim, 2))

    def train_data(self):
        data = Noisy(NUM_TRAIN, 1, is_random=True)
        return Stream(data) if self.stream else data

    def eval_data(self):
        own = Noisy(NUM_EVAL, 2, is_random=False)
        return {"main": Stream(own) if self.stream else own, "other": Noisy(5, 3, is_random=False)}

    def collate(self, items):
        return {name: torch.stack([item[name] for item in items]) for name in ("x", "y")}

    def loss(self, model, batch):
        logits = model(batch["x"])
        return F.cross_entropy(logits, batch["y"]), {"confidence": logits.detach().softmax(1).amax(1).mean()}

    def evaluate(self, model, batch):
        logits = model(batch["x"])
        answers = logits.argmax(1)
        return {
            "accuracy": ratio((answers == batch["y"]).sum(), len(answers)),
            "margin": mean((logits[:, 0] - logits[:, 1]).abs()),
            "answers": collect(answers, batch["y"]),
        }

    def metrics(self, collected):
        answer, truth = collected["answers"]
        hits = int(((answer == 1) & (truth == 1)).sum())
        return {"f1": 2 * hits / max(1, int((answer == 1).sum() + (truth == 1).sum())), "seen": len(truth)}

    def param_groups(self, model):
        return groups(model, no_perturb=["bias"], lr_scale={"3.": 0.5})

    def on_epoch(self, model, epoch):
        self.epochs.append(epoch)


class Stream(IterableDataset):
    """The same rows as a stream without a length, in an order of the epoch's own."""

    def __init__(self, data: Dataset) -> None:
        self.data, self.epoch = data, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self):
        order = torch.randperm(len(self.data), generator=torch.Generator().manual_seed(self.epoch))
        return (self.data[int(index)] for index in order)


def line():
    x, _ = rows(64, 5)
    y = x @ torch.tensor([1.0, -2.0, 0.5, 0.0, 0.0, 0.0]) + 3
    return (x[:48], y[:48]), (x[48:], y[48:])


prices = task(
    model=lambda: nn.Linear(6, 1),
    data=lambda root: line(),
    loss=lambda m, b: F.mse_loss(m(b[0])[:, 0], b[1]),
    metrics={"mae": lambda m, b: mean((m(b[0])[:, 0] - b[1]).abs())},
    best="mae:min",
)


class OnlyLoss:
    """What its loss names is what is measured."""

    def model(self):
        return nn.Linear(6, 2)

    def train_data(self):
        return rows(NUM_TRAIN, 1)

    eval_data = train_data

    def loss(self, model, batch):
        logits = model(batch[0])
        return F.cross_entropy(logits, batch[1]), {"accuracy": (logits.argmax(1) == batch[1]).float()}


class NoLoss:
    model = train_data = eval_data = lambda self: None


class VectorLoss(OnlyLoss):
    def loss(self, model, batch):
        return model(batch[0]).sum(1)


class DictModelLoss(OnlyLoss):
    def loss(self, model, batch):
        return {"loss": model(batch[0]).sum()}


class WrongBest(OnlyLoss):
    best = "f1:max"


class NanLoss(OnlyLoss):
    def loss(self, model, batch):
        return model(batch[0]).sum() * float("nan")


class Unfreezes(OnlyLoss):
    def on_epoch(self, model, epoch):
        model.bias.requires_grad_(epoch > 1)


class ShortStream(OnlyLoss):
    def train_data(self):
        return Stream(Noisy(NUM_TRAIN, 1, is_random=False))

    def loss(self, model, batch):
        return F.cross_entropy(model(batch["x"]), batch["y"])

    def eval_data(self):
        return Noisy(NUM_EVAL, 2, is_random=False)
