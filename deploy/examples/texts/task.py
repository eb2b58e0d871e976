"""The task: texts as they are, made to tensors batch by batch."""

import torch
import torch.nn.functional as F
from classifier import TextClassifier, Tokeniser
from reviews import reviews
from xsam.sdk import ratio


class Sentiment:
    best = "accuracy:max"

    def __init__(self, seed: int, dim: int = 32, num_layers: int = 2) -> None:
        self.dim, self.num_layers = dim, num_layers
        self.train, self.val = reviews(768, seed), reviews(192, seed + 1)
        self.tokeniser = Tokeniser(self.train[0])

    def model(self):
        return TextClassifier(len(self.tokeniser), self.dim, self.num_layers, num_classes=2)

    def train_data(self):
        return list(zip(*self.train, strict=True))

    def eval_data(self):
        return list(zip(*self.val, strict=True))

    def collate(self, items):
        texts, labels = zip(*items, strict=True)
        return {"tokens": self.tokeniser(list(texts)), "labels": torch.tensor(labels)}

    def loss(self, model, batch):
        logits = model(batch["tokens"])
        hits = (logits.detach().argmax(1) == batch["labels"]).sum()
        return F.cross_entropy(logits, batch["labels"]), {"accuracy": ratio(hits, len(logits))}
