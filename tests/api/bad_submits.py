"""Submits that are refused, and what each gets; `python -m tests.api.bad_submits` prints the table as Markdown.

The service has one node with 4 CPUs and 1 GPU, allows the package `team_code`, and has a job with the
Idempotency-Key `taken`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class BadSubmit:
    """One refused request: `body` is sent as JSON, bytes as they are."""

    what: str
    body: Any
    status: int
    code: str
    field: str | None
    headers: Mapping[str, str] = field(default_factory=dict)
    shown: str | None = None

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()

    @property
    def all_headers(self) -> dict[str, str]:
        return {**_JSON, **self.headers}


def _xsam(**options: Any) -> dict[str, Any]:
    return {"optimizer": {"variant": "xsam", **options}}


def _base(**options: Any) -> dict[str, Any]:
    return {"optimizer": {"variant": "sgd", "base": options}}


def _custom(**options: Any) -> dict[str, Any]:
    return {"model": {"name": "custom", **options}}


_INVALID = (422, "validation_failed")
_MALFORMED = (400, "malformed_body")
_DEEP = b'{"model":' * 50_000

BAD_SUBMITS = (
    BadSubmit("a misspelt field", {"epoch": 5}, *_INVALID, "epoch"),
    BadSubmit(
        "data for 7.9 TB of memory",
        {"dataset": {"name": "synthetic", "image_size": 512, "channels": 3, "num_train": 10_000_000}},
        *_INVALID,
        "dataset.num_train",
    ),
    BadSubmit("no epochs", {"epochs": 0}, *_INVALID, "epochs"),
    BadSubmit("a word for a number", {"epochs": "many"}, *_INVALID, "epochs"),
    BadSubmit("true for a number", {"epochs": True}, *_INVALID, "epochs"),
    BadSubmit("half an epoch", {"epochs": 0.5}, *_INVALID, "epochs"),
    BadSubmit("null for a number", {"epochs": None}, *_INVALID, "epochs"),
    BadSubmit("a huge number", {"seed": 10**300}, *_INVALID, "seed", shown='{"seed": 1000...(300 zeros)}'),
    BadSubmit("not a number", b'{"optimizer": {"variant": "sam", "rho": NaN}}', *_INVALID, "optimizer.rho"),
    BadSubmit("infinity", b'{"optimizer": {"variant": "sam", "rho": 1e999}}', *_INVALID, "optimizer.rho"),
    BadSubmit("an unknown optimizer", {"optimizer": {"variant": "lion"}}, *_INVALID, "optimizer.variant"),
    BadSubmit("an optimizer without its kind", {"optimizer": {"rho": 0.1}}, *_INVALID, "optimizer.variant"),
    BadSubmit("a negative radius", _xsam(rho=-0.1), *_INVALID, "optimizer.rho"),
    BadSubmit("no ascent step", _xsam(ascent_steps=0), *_INVALID, "optimizer.ascent_steps"),
    BadSubmit("alpha searched at odd times", _xsam(alpha_every="hour"), *_INVALID, "optimizer.alpha_every"),
    BadSubmit("a grid of one point", _xsam(alpha_max=0.1, alpha_delta=0.5), *_INVALID, "optimizer.alpha_delta"),
    BadSubmit("rho for plain SGD", {"optimizer": {"variant": "sgd", "rho": 0.1}}, *_INVALID, "optimizer.rho"),
    BadSubmit("an unknown base optimizer", _base(name="lamb"), *_INVALID, "optimizer.base.name"),
    BadSubmit("no learning rate", _base(name="adamw", lr=0), *_INVALID, "optimizer.base.lr"),
    BadSubmit(
        "Nesterov without momentum",
        _base(name="sgd", nesterov=True, momentum=0),
        *_INVALID,
        "optimizer.base.nesterov",
    ),
    BadSubmit("a beta of 1", _base(name="adam", betas=[0.9, 1]), *_INVALID, "optimizer.base.betas.1"),
    BadSubmit("an unknown model", {"model": {"name": "resnet1"}}, *_INVALID, "model.name"),
    BadSubmit("images too small for the model", {"model": {"name": "vgg11_bn"}}, *_INVALID, "model.name"),
    BadSubmit("an unknown dataset", {"dataset": {"name": "imagenet"}}, *_INVALID, "dataset.name"),
    BadSubmit(
        "noise on every label", {"dataset": {"name": "digits", "label_noise": 1}}, *_INVALID, "dataset.label_noise"
    ),
    BadSubmit(
        "more examples than there are",
        {"dataset": {"name": "digits", "train_size": 5000}},
        *_INVALID,
        "dataset.train_size",
    ),
    BadSubmit("images from nowhere", {"dataset": {"name": "image_folder"}}, *_INVALID, "dataset.folder"),
    BadSubmit(
        "a folder outside the root",
        {"dataset": {"name": "image_folder", "folder": "../../etc"}},
        *_INVALID,
        "dataset.folder",
    ),
    BadSubmit("a step schedule without steps", {"schedule": {"name": "step"}}, *_INVALID, "schedule.milestones"),
    BadSubmit("a batch larger than an epoch", {"batch_size": 2000}, *_INVALID, "batch_size"),
    BadSubmit(
        "a batch that workers can't share", {"batch_size": 63, "resources": {"num_workers": 2}}, *_INVALID, "batch_size"
    ),
    BadSubmit("one and a half GPUs", {"resources": {"gpus_per_worker": 1.5}}, *_INVALID, "resources.gpus_per_worker"),
    BadSubmit("an unknown precision", {"precision": "fp8"}, *_INVALID, "precision"),
    BadSubmit("a priority out of range", {"priority": 1000}, *_INVALID, "priority"),
    BadSubmit("a label key with a space", {"labels": {"my key": "x"}}, *_INVALID, "labels.my key"),
    BadSubmit("a NUL in a label", {"labels": {"a": "x\x00y"}}, *_INVALID, "labels.a"),
    BadSubmit("a NUL in an option", _custom(target="team_code:net", options={"a": "\x00"}), *_INVALID, "model.options"),
    BadSubmit(
        "half a surrogate pair", _custom(target="team_code:net", options={"a": "\ud800"}), *_INVALID, "model.options"
    ),
    BadSubmit("a target that is a path", _custom(target="/etc/passwd"), *_INVALID, "model.target"),
    BadSubmit("code that is not allowed", _custom(target="os.path:join"), 422, "invalid_request", "model.target"),
    BadSubmit(
        "more GPUs than there are",
        {"resources": {"gpus_per_worker": 8}},
        422,
        "infeasible",
        "resources.gpus_per_worker",
    ),
    BadSubmit(
        "more workers than fit",
        {"resources": {"num_workers": 16}},
        422,
        "infeasible",
        "resources.num_workers",
    ),
    BadSubmit(
        "another job under a used key",
        {"epochs": 99},
        409,
        "conflict",
        "Idempotency-Key",
        headers={"Idempotency-Key": "taken"},
    ),
    BadSubmit("an empty key", {}, *_INVALID, "Idempotency-Key", headers={"Idempotency-Key": ""}),
    BadSubmit("a list", [], *_INVALID, "body"),
    BadSubmit("nothing", b"", *_INVALID, "body", shown="(empty)"),
    BadSubmit("half a document", b'{"epochs": ', *_MALFORMED, None),
    BadSubmit("bytes that are no text", b'{"name": "\xff\xfe"}', *_MALFORMED, None, shown='{"name": "\\xff\\xfe"}'),
    BadSubmit("nested without end", _DEEP, *_MALFORMED, None, shown='{"model":{"model":... (50,000 times)'),
    BadSubmit("YAML", b"epochs: 5", 415, "unsupported_media_type", None, headers={"Content-Type": "application/yaml"}),
    BadSubmit("a body over the limit", b" " * 1_000_001, 413, "body_too_large", None, shown="(1,000,001 bytes)"),
)


def as_markdown() -> str:
    """Return the table."""
    lines = ["| submit | | status | code | field |", "|---|---|---|---|---|"]
    for bad in BAD_SUBMITS:
        shown = bad.shown or bad.content.decode("utf-8", "backslashreplace")
        if bad.headers:
            shown += "".join(f" ({name}: {value})" for name, value in bad.headers.items())
        named = f"`{bad.field}`" if bad.field else ""
        lines.append(f"| {bad.what} | `{shown}` | {bad.status} | `{bad.code}` | {named} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(as_markdown())
