"""What is known of a job while it is followed: polled over REST, rendered as one live block or as plain lines."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import TypeVar

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from xsam.api import formats
from xsam.api.cli import states
from xsam.api.client import Client
from xsam.api.client.errors import ApiError, UnreachableError
from xsam.services.jobs.schemas import JobRead
from xsam.services.jobs.states import is_terminal
from xsam.services.metrics.records import AlphaRecord
from xsam.services.metrics.schemas import EpochRead

_Answer = TypeVar("_Answer")

POLL_S = 0.3
PATIENCE_S = 60.0
"""For so long, what is followed may give no sign of life: a restart of the service takes seconds."""
_PASSING = frozenset({502, 503, 504})
"""Statuses of a service that is not there yet, or of a proxy before it."""
_RECENT_EPOCHS = 5
_BAR_WIDTH = 30


@dataclass(slots=True)
class Watched:
    """One job with all it has measured so far."""

    job: JobRead
    epochs: list[EpochRead] = field(default_factory=list)
    alphas: list[AlphaRecord] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Whether the job has ended and nothing more will come."""
        return is_terminal(self.job.state)

    @property
    def title(self) -> str:
        """The job's name, or its id."""
        return self.job.name or self.job.id

    @property
    def epochs_done(self) -> float:
        """Finished epochs and the part of the present one."""
        progress = self.job.progress
        if self.is_over or not progress.step or not progress.steps_per_epoch:
            return progress.epochs_done
        within = progress.step / progress.steps_per_epoch - progress.epochs_done
        return progress.epochs_done + min(max(within, 0.0), 1.0)

    @property
    def eta_s(self) -> float | None:
        """Seconds until the last epoch ends, at the pace of the last few."""
        if self.is_over or not self.epochs:
            return None
        pace_s = fmean(epoch.epoch_s for epoch in self.epochs[-_RECENT_EPOCHS:])
        return pace_s * (self.job.progress.num_epochs - self.epochs_done)

    @property
    def alpha(self) -> float | None:
        """The alpha that the optimizer uses now."""
        return self.alphas[-1].alpha if self.alphas else getattr(self.job.spec.optimizer, "alpha", None)

    def update(self, client: Client) -> Sequence[EpochRead]:
        """Read what is new and return the new epochs.

        The state is read first, so a job that has ended has all its rows already.
        """
        job = client.get(self.job.id)
        if job.attempt > max(self.job.attempt, 1):  # rows seen before the first attempt was are its own
            self._forget_what_runs_again()
        fresh = client.metrics(job.id, after=self.epochs[-1].epoch if self.epochs else 0)
        alphas = client.alphas(job.id, after_step=self.alphas[-1].step if self.alphas else 0)
        # Kept only once all is read, so that a connection that breaks in between loses nothing.
        self.job = job
        self.epochs.extend(fresh)
        self.alphas.extend(alphas)
        return fresh

    def _forget_what_runs_again(self) -> None:
        # A new attempt goes on from a checkpoint: rows beyond it are dropped and come again.
        self.epochs.clear()
        self.alphas.clear()


def watch(client: Client, jobs: Sequence[Watched], console: Console) -> None:
    """Show the jobs until all have ended: live on a terminal, one line per epoch elsewhere."""
    if console.is_terminal:
        with Live(render(jobs), console=console, refresh_per_second=8) as live:
            _poll(client, jobs, lambda watched, fresh: live.update(render(jobs)))
    else:
        _poll(client, jobs, lambda watched, fresh: _print_lines(console, watched, fresh))


def patiently(read: Callable[[], _Answer]) -> _Answer:
    """Return what a call to the service gives, also when it is being restarted meanwhile.

    Raises:
        UnreachableError: it has not answered for a minute.
        ApiError: it refused.
    """
    gives_up_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return read()
        except (UnreachableError, ApiError) as e:
            is_passing = isinstance(e, UnreachableError) or e.status in _PASSING
            if not is_passing or time.monotonic() >= gives_up_s:
                raise
        time.sleep(POLL_S)


def render(jobs: Sequence[Watched]) -> RenderableType:
    """Return a block with each job's bar and its latest numbers."""
    table = Table.grid(padding=(0, 1))
    for watched in jobs:
        progress = watched.job.progress
        title = Text.from_markup(f"[bold]{escape(watched.title)}[/] {states.state(watched.job)}")
        bar = ProgressBar(total=progress.num_epochs, completed=watched.epochs_done, width=_BAR_WIDTH)
        eta = f"ETA {formats.duration(watched.eta_s)}" if watched.eta_s is not None else ""
        table.add_row(title, bar, f"epoch {progress.epochs_done}/{progress.num_epochs}", eta)
    lines = [Text(f"{watched.title}: {numbers(watched)}", overflow="ellipsis", no_wrap=True) for watched in jobs]
    return Group(table, *lines)


def numbers(watched: Watched) -> str:
    """Return the latest losses, accuracies, alpha* and pace in one line."""
    if not watched.epochs:
        loss = watched.job.progress.loss
        return "waiting for its turn" if watched.job.attempt == 0 else f"loss {formats.number(loss)}"
    last = watched.epochs[-1]
    accuracies = [epoch.eval_accuracy for epoch in watched.epochs if epoch.eval_accuracy is not None]
    best = f" (best {formats.percent(max(accuracies))})" if accuracies else ""
    parts = [
        f"loss train {formats.number(last.train_loss)} eval {formats.number(last.eval_loss)}",
        f"{formats.measured(last)}{best}",
        f"alpha* {formats.number(watched.alpha, 2)}" if watched.alpha is not None else "",
        f"{last.samples_per_s:,.0f} samples/s",
    ]
    return "  ".join(part for part in parts if part)


def _poll(client: Client, jobs: Sequence[Watched], show: Callable[[Watched, Sequence[EpochRead]], None]) -> None:
    while True:
        for watched in jobs:
            if not watched.is_over:
                show(watched, patiently(partial(watched.update, client)))
        if all(watched.is_over for watched in jobs):
            return
        time.sleep(POLL_S)


def _print_lines(console: Console, watched: Watched, fresh: Sequence[EpochRead]) -> None:
    for epoch in fresh:
        parts = [
            f"{watched.title}: epoch {epoch.epoch}/{watched.job.progress.num_epochs}",
            f"loss train {formats.number(epoch.train_loss)} eval {formats.number(epoch.eval_loss)}",
            formats.measured(epoch),
            f"{epoch.samples_per_s:,.0f} samples/s",
        ]
        alpha = next((one.alpha for one in reversed(watched.alphas) if one.epoch <= epoch.epoch), None)
        if alpha is not None:
            parts.insert(3, f"alpha* {formats.number(alpha, 2)}")
        console.print("  ".join(part for part in parts if part), markup=False)
