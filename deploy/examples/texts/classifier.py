"""A tokeniser and a small transformer, both made here."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

PAD, UNKNOWN = 0, 1


class Tokeniser:
    """Words to numbers; the vocabulary is that of the training texts."""

    def __init__(self, texts: Iterable[str]) -> None:
        words = sorted({word for text in texts for word in text.split()})
        self.numbers = {word: number for number, word in enumerate(words, start=2)}

    def __len__(self) -> int:
        return len(self.numbers) + 2

    def __call__(self, texts: list[str]) -> Tensor:
        """`(texts, longest)` int64, padded with PAD."""
        rows = [torch.tensor([self.numbers.get(word, UNKNOWN) for word in text.split()]) for text in texts]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)


class TextClassifier(nn.Module):
    def __init__(self, num_words: int, dim: int, num_layers: int, num_classes: int, max_words: int = 64) -> None:
        super().__init__()
        self.words = nn.Embedding(num_words, dim, padding_idx=PAD)
        self.places = nn.Embedding(max_words, dim)
        self.norm = nn.LayerNorm(dim)
        for embedding in (self.words, self.places):
            nn.init.normal_(embedding.weight, std=0.1)
        layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        is_padding = tokens == PAD
        places = self.places(torch.arange(tokens.shape[1], device=tokens.device))
        encoded = self.encoder(self.norm(self.words(tokens) + places), src_key_padding_mask=is_padding)
        return self.head(encoded[:, 0])
