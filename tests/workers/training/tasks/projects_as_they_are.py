"""Projects as people have them: nothing here knows of the service."""

from pathlib import Path

import lightning
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import DistilBertConfig, DistilBertForSequenceClassification


def points(number: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(number, 6, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] > x[:, 1]).long()


class Points(lightning.LightningDataModule):
    def __init__(self, batch_size: int = 7):
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage):
        self.train, self.val = TensorDataset(*points(120, 1)), TensorDataset(*points(50, 2))

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=self.batch_size)


class LitPoints(lightning.LightningModule):
    def __init__(self, dim: int = 16, dropout: float = 0.1):
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(nn.Linear(6, dim), nn.Dropout(dropout), nn.ReLU(), nn.Linear(dim, 2))
        self.calls = 0

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, batch_idx):
        self.calls += 1
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("confident", loss.detach().neg().exp(), prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        self.log_dict({"val_acc": (logits.argmax(1) == y).float().mean(), "val_loss": F.cross_entropy(logits, y)})

    def configure_optimizers(self):
        raise AssertionError("the job has its own optimizer")


class KeptLit(LitPoints):
    """Each of its processes keeps the weights that it validates."""

    def __init__(self, folder: str, dim: int = 16):
        super().__init__(dim, dropout=0.0)
        self.folder = folder

    def validation_step(self, batch, batch_idx):
        rank = dist.get_rank() if dist.is_initialized() else 0
        torch.save(self.state_dict(), Path(self.folder) / f"{rank}.pt")
        super().validation_step(batch, batch_idx)


class SelfSteppingLit(LitPoints):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False


class MetricLit(LitPoints):
    def validation_step(self, batch, batch_idx):
        self.log("f1", object())


def words(number: int, seed: int) -> Dataset:
    """Sentences of equal length whose label is whether word 7 is in them."""
    ids = torch.randint(5, 40, (number, 12), generator=torch.Generator().manual_seed(seed))
    ids[::2, 3] = 7
    return Dataset.from_dict({"input_ids": ids.tolist(), "label": (ids == 7).any(1).long().tolist()})


def splits(data_root):
    return {"train": words(120, 1), "test": words(40, 2)}


def unlabelled(data_root):
    return {name: data.remove_columns("label") for name, data in splits(data_root).items()}


def tiny_config() -> dict:
    return {"vocab_size": 50, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 32}


class TinyBert(DistilBertForSequenceClassification):
    config_class = DistilBertConfig
