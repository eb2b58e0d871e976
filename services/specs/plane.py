"""What a job that looks at the loss around another job's checkpoints is told."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from xsam.services.specs.base import Spec, field_error
from xsam.services.specs.optimizer import Radius

TrainedJob = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{1,32}$")]
"""The id of a job that trains, or has trained."""


class PlaneView(Spec):
    """The plane of g_0 and the part of g_k orthogonal to it, around the weights of a checkpoint (figure 1a)."""

    checkpoints: Literal["all", "newest"] = "all"
    """Of those that the job has kept: its `checkpoint.keep_last` newest ones and the best one."""
    rho: Radius | None = None
    """Length of the ascent; by default the job's own where it is a plain length, or else 0.05."""
    rho_max: Radius | None = None
    """Radius of the circle on which losses are compared; by default the job's own, or twice rho."""
    ascent_steps: Annotated[int, Field(ge=1, le=20)] | None = None
    """k; by default the job's own, or 1."""
    num_points: Annotated[int, Field(ge=3, le=101)] = 25
    """Grid points along each axis, odd: the square of it are the forward passes that a checkpoint takes."""
    extent: Annotated[float, Field(gt=0, le=100)] = 1.25
    """Half the width of the grid, in units of rho_max."""

    @model_validator(mode="after")
    def _has_a_middle(self) -> Self:
        if self.num_points % 2 == 0:
            raise field_error(
                "plane.num_points", f"num_points is {self.num_points}; allowed are odd numbers from 3 to 101"
            )
        return self


class Plane(PlaneView):
    """Look at the loss around another job's checkpoints; the rest of what is trained comes from that job."""

    job: TrainedJob
    """The job whose checkpoints and data are looked at."""
