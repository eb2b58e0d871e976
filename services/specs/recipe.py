"""What a training step does besides its optimizer, which parameters it trains, and what makes it faster."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from xsam.services.specs.base import Spec

NamePattern = Annotated[str, StringConstraints(pattern=r"^[\w.*?\[\]!-]+$", max_length=200)]
"""A shell pattern of parameters' names: `layer1.*`, `*.bias`."""
Kind = Literal["norms", "biases"]


class Recipe(Spec):
    """What a training step does besides its optimizer; by default nothing.

    Smoothed and mixed labels are the dataset's, rho's warm-up the optimizer's, the learning rate's the schedule's.
    """

    micro_batches: Annotated[int, Field(ge=1, le=1024)] = 1
    """Parts of each worker's batch that every pass walks one after the other (gradient accumulation): memory for one
    part's activations, the gradient of the whole. Steps and gradient evaluations stay what `batch_size` makes them;
    BatchNorm sees a part at a time."""
    max_grad_norm: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Shorten the update gradient, of all parameters together, to this norm; null does not."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Keep an exponential moving average of the weights, one more model copy, which is what is evaluated and what
    `weights` holds: after each step decay of it and 1 - decay of the new weights, where decay starts lower,
    (1 + step) / (10 + step). Usual are 0.99 to 0.9999; null keeps none."""


class Parameters(Spec):
    """Which parameters are trained, and how; by default all alike."""

    freeze: Annotated[tuple[NamePattern, ...], Field(max_length=100)] = ()
    """Parameters that keep their first (or pretrained) values, by shell patterns of their names: `["conv1.*",
    "layer?.*"]`. BatchNorm layers that are frozen whole keep their statistics too."""
    no_decay: Annotated[tuple[Kind, ...], Field(max_length=2)] = ()
    """Without weight decay: norms (the parameters of BatchNorm, LayerNorm and their like), biases."""
    no_perturb: Annotated[tuple[Kind, ...], Field(max_length=2)] = ()
    """Left where they are by the ascent of SAM and its family: norms, biases."""


class Speed(Spec):
    """What may make steps faster without changing what is computed, rounding apart."""

    compile: bool = False
    """torch.compile for the passes of training; the first step takes as long as compiling does, often a minute."""
    channels_last: bool = False
    """Keep the weights of convolutions, and so what they compute, with the channels last in memory; pays with fp16,
    bf16 and TF32."""
    tf32: bool = False
    """Matrix products of fp32 in TF32 on GPUs that have it; convolutions always are."""
