"""The same with Hugging Face's classes: nothing is downloaded.

Without `pretrained` the network starts anew; with it both come from that folder below the service's folder of models.
"""

from pathlib import Path

import torch
from reviews import reviews
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
)
from xsam.sdk import ratio


class Sentiment:
    best = "accuracy:max"

    def __init__(self, seed: int, model_root: Path | None, dim: int = 32, pretrained: str | None = None) -> None:
        self.dim = dim
        self.pretrained = None if pretrained is None or model_root is None else model_root / pretrained
        self.train, self.val = reviews(768, seed), reviews(192, seed + 1)
        self.tokenizer = self._tokenizer()

    def _tokenizer(self):
        if self.pretrained is not None:
            return AutoTokenizer.from_pretrained(self.pretrained, local_files_only=True)
        words = sorted({word for text in self.train[0] for word in text.split()})
        vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *words])}
        tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = WhitespaceSplit()
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")

    def model(self):
        if self.pretrained is not None:
            return AutoModelForSequenceClassification.from_pretrained(
                self.pretrained, num_labels=2, local_files_only=True
            )
        config = BertConfig(
            vocab_size=len(self.tokenizer),
            hidden_size=self.dim,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=2 * self.dim,
            max_position_embeddings=64,
        )
        return BertForSequenceClassification(config)

    def train_data(self):
        return list(zip(*self.train, strict=True))

    def eval_data(self):
        return list(zip(*self.val, strict=True))

    def collate(self, items):
        texts, labels = zip(*items, strict=True)
        encoded = self.tokenizer(list(texts), padding=True, return_tensors="pt")
        return {**encoded, "labels": torch.tensor(labels)}

    def loss(self, model, batch):
        output = model(**batch)
        hits = (output.logits.detach().argmax(1) == batch["labels"]).sum()
        return output.loss, {"accuracy": ratio(hits, len(batch["labels"]))}
