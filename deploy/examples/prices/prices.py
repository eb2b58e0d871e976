"""Tabular regression: a model, two tensors, a loss and a metric."""

import torch
import torch.nn.functional as F
from torch import nn

from xsam.sdk import Sum
from xsam.sdk import task as make_task


def read(data_root):
    """Return made-up houses; yours would read `data_root / "prices.parquet"`."""
    x = torch.randn(512, 8, generator=torch.Generator().manual_seed(0))
    price = 2 * x[:, 0] - x[:, 1] * x[:, 2] + 0.5 * x[:, 3].abs()
    return (x[:400], price[:400]), (x[400:], price[400:])


def squared_error(model, batch):
    x, price = batch
    return Sum(((model(x)[:, 0] - price) ** 2).sum(), len(price))


task = make_task(
    model=lambda: nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 1)),
    data=read,
    loss=lambda model, batch: F.mse_loss(model(batch[0])[:, 0], batch[1]),
    metrics={"mse": squared_error},
    best="mse:min",
)
