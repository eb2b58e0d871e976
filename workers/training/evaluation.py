"""Evaluation over all ranks, every example counted once."""

from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import nn

from xsam.workers.messages import StopReason
from xsam.workers.training.data.feeds import EvalFeed
from xsam.workers.training.ranks import Ranks
from xsam.workers.training.stopping import StopSignal


@torch.inference_mode()
def evaluate(
    model: nn.Module, feed: EvalFeed, ranks: Ranks, stop_signal: StopSignal, autocast: AbstractContextManager[object]
) -> tuple[float, float] | StopReason:
    """Return mean loss and accuracy over all evaluation examples, the same on every rank.

    Returns:
        A reason to stop instead, if one came that is final; others wait for the end of the evaluation.

    Args:
        model: without DDP's wrapper; its buffers must be equal on all ranks.
        feed: this rank's share.
        ranks: the collectives.
        stop_signal: of evaluation batches.
        autocast: context of the forward passes, entered once per batch.
    """
    model.eval()
    device = next(model.parameters()).device
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    num_correct = torch.zeros((), dtype=torch.int64, device=device)
    stop_signal.start()
    for images, labels in feed.batches():
        if len(labels):
            with autocast:
                logits = model(images)
            loss_sum += F.cross_entropy(logits.float(), labels, reduction="sum")
            num_correct += (logits.argmax(1) == labels).sum()
        reason, _ = stop_signal.check()
        if reason is not None and reason.is_final:
            return reason
    stop_signal.pause()
    total_loss, total_correct = ranks.sums(loss_sum, num_correct)
    return total_loss / feed.num_examples, total_correct / feed.num_examples
