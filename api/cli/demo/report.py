"""What the demo leaves behind: a table of results and one picture of the curves."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from xsam.api import formats
from xsam.api.cli.watching import Watched

_COLORS = ("#777777", "#2b6cb0", "#c05621")
_SIZE_INCHES = (13.0, 4.0)
_DPI = 120


def result_table(jobs: Sequence[Watched]) -> Table:
    """Return the results of jobs that succeeded, one row each."""
    table = Table(title="Accuracy on clean test labels after training on noisy ones")
    table.add_column("method", no_wrap=True)
    for column in ("ranks", "last", "best", "epoch", "seconds", "grad evals", "alpha*"):
        table.add_column(column, justify="right", no_wrap=True)
    for watched in jobs:
        result = watched.job.summary
        if result is None:
            continue
        table.add_row(
            watched.title,
            str(watched.job.spec.resources.num_workers),
            formats.percent(result.final_accuracy),
            formats.percent(result.best_accuracy),
            str(result.best_epoch),
            formats.number(result.train_s, 1),
            f"{result.grad_evals:,}",
            formats.number(result.mean_alpha, 2),
        )
    return table


def draw(jobs: Sequence[Watched], path: Path) -> None:
    """Write a PNG with test accuracy, training loss and the alpha* trajectory."""
    figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
    accuracy, loss, alpha = figure.subplots(1, 3)
    for watched, color in zip(jobs, _COLORS, strict=False):
        epochs = [row.epoch for row in watched.epochs]
        accuracy.plot(
            epochs, [100 * (row.eval_accuracy or 0) for row in watched.epochs], color=color, label=watched.title
        )
        loss.plot(epochs, [row.train_loss for row in watched.epochs], color=color, label=watched.title)
        if watched.alphas:
            found = [row.alpha for row in watched.alphas]
            alpha.plot([row.epoch for row in watched.alphas], found, ".-", color=color, label=watched.title)
    _finish(accuracy, "test accuracy, %")
    _finish(loss, "training loss (noisy labels)")
    alpha.axhline(1.0, color="#bbbbbb", linestyle="--", linewidth=1, label="SAM's direction (alpha = 1)")
    _finish(alpha, "alpha*")
    figure.savefig(path)


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
