"""What a figure is: its claim, the stages that it queues, and what it finds in what they bring."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xsam.services.lab.finding import Finding
from xsam.services.lab.spec import LabSpec, Stage
from xsam.services.metrics.records import AlphaRecord, PlaneRecord
from xsam.services.studies.trials import TrialState


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one stage has brought; of a kind other than its own nothing."""

    trials: Sequence[TrialState] = ()
    """Of a study."""
    alphas: Sequence[AlphaRecord] = ()
    """Of a job."""
    num_epochs: int = 0
    """Of a job."""
    planes: Sequence[PlaneRecord] = ()
    """Of a job that has looked at another one's checkpoints, by step."""
    computed: Mapping[str, Any] = field(default_factory=dict)
    """Of a computation."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the paper (arXiv 2603.10048)."""

    title: str
    claim: str
    plan: Callable[[LabSpec], Sequence[Stage]]
    find: Callable[[LabSpec, Mapping[str, Evidence]], Finding]
