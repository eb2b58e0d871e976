"""Which rho the demo gives each method: a sweep on the digits with 40 % label noise, several seeds each.

python -m tests.bench.demo_sweep [--methods sgd,sam] [--rhos 0.05,0.1] [--seeds 0,1] [--epochs 30] [--output FILE]

Every run is one `run_training` call on one thread, with the specification that the demo submits. SGD is the control:
it has no rho. Both accuracy columns are read off the evaluation part, and so is the choice of rho: they compare methods
that were chosen in the same way, and are optimistic for each of them.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xsam.api.cli.demo.specs import BASE, SHARED
from xsam.services.jobs.summary import TrainingSummary
from xsam.services.metrics.records import EpochRecord
from xsam.services.specs.job import JobSpec
from xsam.workers.messages import RankContext, Report
from xsam.workers.training.errors import DivergenceError
from xsam.workers.training.loop import run_training

METHODS = ("sgd", "sam", "xsam")
RHOS = (0.05, 0.1, 0.15, 0.2, 0.3)
SEEDS = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class Arm:
    """One row of the table: a method at one rho, all its seeds."""

    variant: str
    rho: float | None
    summaries: list[TrainingSummary | None]
    """None where a run diverged."""
    train_accuracies: list[float]
    run_s: float

    @property
    def mean_final(self) -> float:
        """Mean accuracy after the last epoch; a diverged run counts as 0."""
        return statistics.fmean(0.0 if s is None else s.final_accuracy for s in self.summaries)

    def row(self) -> str:
        """Return the row in Markdown."""
        ended = [s for s in self.summaries if s is not None]
        rho = "-" if self.rho is None else f"{self.rho:g}"
        alphas = [s.mean_alpha for s in ended if s.mean_alpha is not None]
        alpha = f"{statistics.fmean(alphas):.2f}" if alphas else "-"
        diverged = len(self.summaries) - len(ended)
        seeds = ", ".join("diverged" if s is None else f"{100 * s.final_accuracy:.1f}" for s in self.summaries)
        return (
            f"| {self.variant} | {rho} | {_spread([s.final_accuracy for s in ended])} | {seeds} "
            f"| {_spread([s.best_accuracy for s in ended])} | {_median([s.best_epoch for s in ended])} "
            f"| {_spread(self.train_accuracies)} | {alpha} | {diverged} | {self.run_s:.1f} |"
        )


HEADER = (
    "| method | rho | last epoch, % | by seed | best epoch, % | best epoch (median) "
    "| train accuracy, % | mean alpha* | diverged | s |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


class _LastEpoch:
    """Telemetry that keeps the last epoch's record."""

    record: EpochRecord | None = None

    def report(self, report: Report) -> None:
        """Keep it if it is an epoch's."""
        if isinstance(report, EpochRecord):
            self.record = report


class _NoWish:
    def stop_reason(self) -> None:
        """Let the run end."""

    def may_publish(self) -> bool:
        """Nobody else writes here."""
        return True


def spec_of(variant: str, rho: float | None, seed: int, epochs: int) -> JobSpec:
    """Return the job that the demo submits for a method, at another rho, seed or length."""
    optimizer = {"variant": variant, "base": BASE, **({} if rho is None else {"rho": rho})}
    return JobSpec.model_validate({**SHARED, "optimizer": optimizer, "seed": seed, "epochs": epochs})


def run_arm(variant: str, rho: float | None, seeds: list[int], epochs: int) -> Arm:
    """Train once for each seed."""
    summaries: list[TrainingSummary | None] = []
    train_accuracies = []
    started_at = time.perf_counter()
    for seed in seeds:
        telemetry = _LastEpoch()
        with tempfile.TemporaryDirectory() as folder:
            context = RankContext(0, 1, "cpu", dataset_root=None, checkpoint_dir=Path(folder) / "checkpoints")
            try:
                outcome = run_training(spec_of(variant, rho, seed, epochs), context, telemetry, _NoWish())
            except DivergenceError:
                summaries.append(None)
                continue
        summaries.append(outcome.summary)
        if telemetry.record is not None:
            train_accuracies.append(telemetry.record.train_accuracy)
    return Arm(variant, rho, summaries, train_accuracies, (time.perf_counter() - started_at) / len(seeds))


def sweep(methods: list[str], rhos: list[float], seeds: list[int], epochs: int) -> Iterator[Arm]:
    """Yield each method at each rho; the control has none."""
    for method in methods:
        for rho in rhos if method != "sgd" else [None]:
            yield run_arm(method, rho, seeds, epochs)


def main() -> None:
    """Print each row as it is done, then the best of each method; write the same to a file."""
    options = _parser().parse_args()
    lines = [HEADER]
    print(HEADER, flush=True)
    best: dict[str, Arm] = {}
    for arm in sweep(options.methods, options.rhos, options.seeds, options.epochs):
        lines.append(arm.row())
        print(arm.row(), flush=True)
        if arm.variant not in best or arm.mean_final > best[arm.variant].mean_final:
            best[arm.variant] = arm
    lines += ["", "Each method at its own best rho:", "", HEADER, *(arm.row() for arm in best.values())]
    print("\n".join(lines[-len(best) - 4 :]))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text("\n".join(lines) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", type=_items(str), default=list(METHODS))
    parser.add_argument("--rhos", type=_items(float), default=list(RHOS))
    parser.add_argument("--seeds", type=_items(int), default=list(SEEDS))
    parser.add_argument("--epochs", type=int, default=SHARED["epochs"])
    parser.add_argument("--output", type=Path, default=Path("bench-output/demo_sweep.md"))
    return parser


def _items(kind: type) -> Any:
    return lambda text: [kind(part) for part in text.split(",")]


def _spread(shares: list[float]) -> str:
    if not shares:
        return "-"
    deviation = statistics.stdev(shares) if len(shares) > 1 else 0.0
    return f"{100 * statistics.fmean(shares):.1f} +/- {100 * deviation:.1f}"


def _median(numbers: list[int]) -> str:
    return f"{statistics.median(numbers):g}" if numbers else "-"


if __name__ == "__main__":
    main()
