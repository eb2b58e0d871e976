"""States as the terminal shows them; numbers and times stand in `xsam.api.formats`."""

from xsam.services.jobs.schemas import JobRead
from xsam.services.jobs.states import JobState

_COLORS = {
    JobState.QUEUED: "yellow",
    JobState.RUNNING: "cyan",
    JobState.PAUSED: "magenta",
    JobState.SUCCEEDED: "green",
    JobState.FAILED: "red",
    JobState.CANCELLED: "bright_black",
}


def state(job: JobRead) -> str:
    """Return the state, coloured, with a wish that is not yet honoured."""
    return state_text(job.state, job.wish)


def state_text(state: JobState, wish: str | None = None) -> str:
    """Return a state, coloured, with what was asked for and is not yet so."""
    asked = f" ({wish})" if wish is not None else ""
    return f"[{_COLORS[state]}]{state}{asked}[/]"
