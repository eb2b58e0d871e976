"""The tasks with which the loop is measured: a user's, with nothing in the way but the loop."""

import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.bench.core_models import cifar_resnet18, mlp

WORDS, LENGTH = 1000, 32


class TextNet(nn.Module):
    """Two layers of a transformer over 32 words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 64)
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(64, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits."""
        return self.head(self.encoder(self.words(tokens)).mean(1))


class Measured:
    """Random examples of a case's shape; `num_steps` batches an epoch."""

    def __init__(self, case: str, num_examples: int, seed: int = 0) -> None:
        self.case, self.num_examples = case, num_examples
        self.generator = torch.Generator().manual_seed(seed)

    def model(self) -> nn.Module:
        """Return the network."""
        return {"mlp": mlp, "resnet18": cifar_resnet18, "transformer": TextNet}[self.case]()

    def train_data(self) -> tuple[Tensor, Tensor]:
        """Return tensors."""
        return self._rows(self.num_examples)

    def eval_data(self) -> tuple[Tensor, Tensor]:
        """Return one small batch."""
        return self._rows(8)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return cross-entropy."""
        return F.cross_entropy(model(batch[0]), batch[1])

    def _rows(self, number: int) -> tuple[Tensor, Tensor]:
        y = torch.randint(10, (number,), generator=self.generator)
        if self.case == "transformer":
            return torch.randint(WORDS, (number, LENGTH), generator=self.generator), y
        shape = (784,) if self.case == "mlp" else (3, 32, 32)
        return torch.randn(number, *shape, generator=self.generator), y


class Timed(Measured):
    """A task that notes the time of each training step in a file, a line each.

    Args:
        file: the notes; appended to.
        wait_s: how long a step leaves the processor to others, as one does whose work is on a GPU.
        options: see `Measured`.
    """

    def __init__(self, file: str, wait_s: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self._wait_s = wait_s
        self._steps = Path(file).open("a", buffering=1)  # noqa: SIM115 - lives as long as the process

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return cross-entropy."""
        found = super().loss(model, batch)
        if model.training:
            self._steps.write(f"{time.time()}\n")
            time.sleep(self._wait_s)
        return found
