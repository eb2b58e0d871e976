"""What a node is, beside how much it has, and what of that a job asks for: whether they agree is known here alone.

Pure: plain values, no rows. A trait that a node does not announce is none that a job can rely on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

BYTES_PER_GB = 1_000_000_000


class NodeTraits(NamedTuple):
    """What a node is."""

    gpu_kind: str = ""
    """What its GPUs are, as Ray names them; empty where it does not say."""
    gpu_memory_gb: float = 0.0
    """Of each of its GPUs, of the smallest, in 10^9 bytes; 0 where nobody knows."""
    labels: tuple[tuple[str, str], ...] = ()
    """Sorted."""


UNKNOWN = NodeTraits()
"""Of a node that announces nothing."""


class NodeNeeds(NamedTuple):
    """What a job asks of each of its nodes."""

    gpu_kind: str = ""
    """Kind that its GPUs must be of, in any case of its letters; any where it is empty."""
    min_gpu_memory_gb: float = 0.0
    """Of each of its GPUs, in 10^9 bytes."""
    labels: tuple[tuple[str, str], ...] = ()
    """That a node must have, sorted."""
    closed_kinds: tuple[str, ...] = ()
    """Kinds that it may not have, in lower case: its team has none of them left."""

    @classmethod
    def of(
        cls, gpu_kind: str | None, min_gpu_memory_gb: float | None, labels: Mapping[str, str] | None
    ) -> NodeNeeds | None:
        """Return what columns and specifications say; None where that is nothing."""
        needs = cls(gpu_kind or "", min_gpu_memory_gb or 0.0, sorted_labels(labels))
        return needs if any(needs) else None

    def are_met_by(self, traits: NodeTraits) -> bool:
        """Return whether a node will do."""
        kind = traits.gpu_kind.lower()
        return (
            (not self.gpu_kind or self.gpu_kind.lower() == kind)
            and self.min_gpu_memory_gb <= traits.gpu_memory_gb
            and kind not in self.closed_kinds
            and all(pair in traits.labels for pair in self.labels)
        )

    @property
    def words(self) -> tuple[str, ...]:
        """For people, what it asks for: `kind H100`, `at least 40 GB each`, `zone=a`."""
        return needs_in_words(self.gpu_kind, self.min_gpu_memory_gb, self.labels)


def needs_in_words(
    gpu_kind: str | None, min_gpu_memory_gb: float | None, labels: Iterable[tuple[str, str]]
) -> tuple[str, ...]:
    """Return for people what a job asks of its nodes, thing by thing."""
    found = [f"kind {gpu_kind}"] if gpu_kind else []
    if min_gpu_memory_gb:
        found.append(f"at least {min_gpu_memory_gb:g} GB each")
    return (*found, *(f"{key}={value}" for key, value in sorted(labels)))


def sorted_labels(labels: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    """Return labels in the order in which they are compared."""
    return tuple(sorted((labels or {}).items()))
