"""`python -m xsam.workers.local check|run FILE`: a job's own code in this process, without the service.

FILE is the job as JSON. `check` prints its answer as JSON, `run` what happens; the status is 1 if it could not train.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from xsam.services.metrics.records import AlphaRecord, CheckpointRecord, EpochRecord
from xsam.services.specs.job import JobSpec
from xsam.workers.environments import locking
from xsam.workers.environments.store import EnvironmentStore
from xsam.workers.environments.uv import RequirementsError
from xsam.workers.messages import Assignment, ProgressRecord, RankContext, Report, StartedRecord, StopReason
from xsam.workers.rank.code import use_packages
from xsam.workers.rank.script import run_script
from xsam.workers.training.check import Checked, check, own_frames, scratch_context
from xsam.workers.training.errors import TargetError
from xsam.workers.training.loop import run_training

_NO_BUNDLE = "sha256:" + 64 * "0"
_BAR_WIDTH = 30
MAX_BYTES = 20_000_000_000
"""Of the packages that this machine keeps."""


def main() -> None:
    """Read the job, do what was asked, and say how it went."""
    parser = argparse.ArgumentParser(prog="python -m xsam.workers.local")
    parser.add_argument("what", choices=("check", "run"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--code", type=Path)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--model-root", type=Path)
    parser.add_argument("--out", type=Path, default=Path("xsam-run"))
    parser.add_argument("--allowed", action="append", default=[])
    parser.add_argument("--requirements", type=Path)
    parser.add_argument("--environments", type=Path, default=Path.home() / ".cache" / "xsam" / "environments")
    parser.add_argument("--index")
    given = parser.parse_args()
    try:
        spec = _read(given.file)
    except ValidationError as e:
        for error in e.errors():
            where = error.get("ctx", {}).get("field") or ".".join(map(str, error["loc"]))
            print(f"{where}: {error['msg']}", file=sys.stderr)  # noqa: T201 - this is a command
        sys.exit(1)
    if given.requirements is not None:
        _use_requirements(given.requirements.read_text(), EnvironmentStore(given.environments, given.index, MAX_BYTES))
    code_dir = given.code.resolve() if given.code else None
    if code_dir is not None:
        sys.path.insert(0, str(code_dir))
    with tempfile.TemporaryDirectory(prefix="xsam-check-") as scratch:
        folder = Path(scratch) if given.what == "check" else given.out.resolve()
        allowed = tuple(given.allowed)
        context = scratch_context(
            given.data_root, code_dir, folder, allowed_packages=allowed, model_root=given.model_root
        )
        if given.what == "check":
            _say(check(spec, context))
        else:
            _run(spec, context)


def _read(file: Path) -> JobSpec:
    """Return the job as one that one worker trains on the CPU; a folder stands for its bundle."""
    document = json.loads(file.read_text())
    if document.get("code") is not None:
        document["code"] = {"bundle": _NO_BUNDLE}
    document.pop("requirements", None)  # a file of lines, which is read by itself
    document["resources"] = {"num_workers": 1}
    return JobSpec.model_validate(document)


def _use_requirements(text: str, store: EnvironmentStore) -> None:
    try:
        use_packages(locking.lock(text, index=store.index), store)
    except (RequirementsError, TargetError) as e:
        print(e, file=sys.stderr)  # noqa: T201 - this is a command
        sys.exit(1)


def _say(found: Checked) -> None:
    print(json.dumps({name: getattr(found, name) for name in Checked.__slots__}))  # noqa: T201 - this is a command
    sys.exit(0 if found.error is None else 1)


def _run(spec: JobSpec, context: RankContext) -> None:
    terminal = Terminal(spec)
    try:
        if spec.entrypoint is not None:
            assignment = Assignment("local", 1, spec, context, context.checkpoint_dir.parent)
            outcome = run_script(assignment, terminal, terminal)
        else:
            outcome = run_training(spec, replace(context, device="cpu"), terminal, terminal)
    except Exception as e:  # the job's own code may raise anything; this boundary shows it
        terminal.line(own_frames(e, context.code_dir) + f"{type(e).__name__}: {e}")
        sys.exit(1)
    summary = outcome.summary
    best = "" if summary.best_value is None else f", {summary.best_metric} {summary.best_value:.4g}"
    terminal.line(f"{summary.epochs} epochs in {summary.train_s:.1f} s, best is epoch {summary.best_epoch}{best}")
    terminal.line(f"weights: {context.checkpoint_dir.parent / 'weights'}")


class Terminal:
    """Telemetry and control of a run in this process: a bar on a terminal, lines elsewhere.

    Args:
        spec: the job.
    """

    def __init__(self, spec: JobSpec) -> None:
        self._spec = spec
        self._steps_per_epoch = 0
        self._is_live = sys.stderr.isatty()

    def report(self, report: Report) -> None:
        """Show a report."""
        match report:
            case StartedRecord(steps_per_epoch=steps, num_parameters=num, first_step=first):
                self._steps_per_epoch = steps
                whence = "" if first == 1 else f", going on from step {first - 1}"
                self.line(f"{num:,} parameters, {steps} steps an epoch{whence}")
            case ProgressRecord():
                self._bar(report)
            case EpochRecord():
                self._epoch(report)
            case AlphaRecord(step=step, alpha=alpha):
                self.line(f"step {step}: alpha* {alpha:.3f}")
            case CheckpointRecord():
                pass

    def stop_reason(self) -> StopReason | None:
        """Return nothing: Ctrl-C ends the process, and the next run goes on from the newest checkpoint."""
        return None

    def may_publish(self) -> bool:
        """Return true: nobody else owns the folder."""
        return True

    def line(self, text: str) -> None:
        """Write a line above the bar."""
        sys.stderr.write(f"\r\x1b[K{text}\n" if self._is_live else f"{text}\n")

    def _bar(self, progress: ProgressRecord) -> None:
        if not self._is_live or not self._steps_per_epoch:
            return
        share = min(1.0, progress.step / (self._steps_per_epoch * self._spec.epochs))
        full = round(_BAR_WIDTH * share)
        bar = "█" * full + "░" * (_BAR_WIDTH - full)
        sys.stderr.write(f"\r\x1b[K{bar} epoch {progress.epoch}/{self._spec.epochs}  loss {progress.loss:.4f}")
        sys.stderr.flush()

    def _epoch(self, record: EpochRecord) -> None:
        accuracy = {} if record.eval_accuracy is None else {"accuracy": record.eval_accuracy}
        named = {"train loss": record.train_loss, "eval loss": record.eval_loss, **accuracy, **record.metrics}
        values = "  ".join(f"{name} {value:.4g}" for name, value in named.items())
        self.line(f"epoch {record.epoch}/{self._spec.epochs}  {values}  {record.samples_per_s:,.0f} samples/s")


if __name__ == "__main__":
    main()
