"""A job's own code, tried before the job is queued: built, one batch forward, backward and evaluated, on the CPU."""

import ast
import importlib.util
import math
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xsam.services.specs.job import JobSpec
from xsam.workers.messages import RankContext
from xsam.workers.sdk.sums import NoSumError, Sum, as_sum
from xsam.workers.training.build import Parts, build_parts
from xsam.workers.training.errors import TargetError, TrainingError
from xsam.workers.training.optimizers import is_search_step
from xsam.workers.training.ranks import Ranks
from xsam.workers.training.stepping import Stepper
from xsam_core.errors import StepError


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found: the task's measures, or why it can't train."""

    error: str | None = None
    traceback: str | None = None
    """Cut to the frames of the job's own code, where there are any."""
    num_parameters: int | None = None
    num_trainable: int | None = None
    steps_per_epoch: int | None = None
    batch: str | None = None
    """Shapes of the first batch."""
    loss: float | None = None
    metrics: list[str] = field(default_factory=list)
    """Names of what evaluation measures; those that `metrics()` adds may differ on one batch."""
    best: str | None = None
    notes: tuple[str, ...] = ()
    """What is replaced of a project that is taken as it is."""


def check(spec: JobSpec, context: RankContext) -> Checked:
    """Return what came of building a job's task and of one step; never raises for what the job's code does.

    Args:
        spec: the job.
        context: of one rank, on the CPU; its checkpoint folder is not touched.
    """
    try:
        if spec.entrypoint is not None:
            return _check_script(spec, context)
        return _check_task(spec, context)
    except (Exception, SystemExit) as e:  # the job's own code may raise anything; this boundary turns it into a value
        own = own_frames(e, context.code_dir)
        is_told = isinstance(e, TrainingError | StepError | NoSumError)
        name = "" if is_told else f"{type(e).__name__}: "
        return Checked(error=f"{name}{e}", traceback=None if is_told and not own else own or traceback.format_exc())


def own_frames(error: BaseException, code_dir: Path | None) -> str:
    """Return an exception's traceback cut to the job's own files; empty where it passed none."""
    if code_dir is None:
        return ""
    lines: list[str] = []
    current: BaseException | None = error
    while current is not None:
        frames = [f for f in traceback.extract_tb(current.__traceback__) if Path(f.filename).is_relative_to(code_dir)]
        if frames:
            shown = [_relative(frame, code_dir) for frame in frames]
            lines = [*traceback.format_list(shown), *traceback.format_exception_only(current), *lines]
        elif isinstance(current, SyntaxError) and Path(current.filename or "").is_relative_to(code_dir):
            told = [line.replace(f"{code_dir}/", "") for line in traceback.format_exception_only(current)]
            lines = [*told, *lines]
        current = current.__cause__ or current.__context__
    return "".join(lines)


def _relative(frame: traceback.FrameSummary, code_dir: Path) -> traceback.FrameSummary:
    path = Path(frame.filename).relative_to(code_dir)
    return traceback.FrameSummary(str(path), frame.lineno, frame.name, line=frame.line)


def _check_task(spec: JobSpec, context: RankContext) -> Checked:
    workers = spec.resources.num_workers
    alone = replace(context, rank=0, world_size=1, device="cpu")
    resources = spec.resources.model_copy(update={"num_workers": 1})
    plain = spec.speed.model_copy(update={"compile": False})  # compiling takes longer than a check may
    own_batch = {"batch_size": max(1, spec.batch_size // workers), "resources": resources, "speed": plain}
    one_rank = spec.model_copy(update=own_batch)
    parts = build_parts(one_rank, alone, Ranks(alone))
    parts.task.on_epoch(parts.model, 1)
    parts.train_mode()
    batch = next(iter(parts.train_feed.batches(0, 0)))
    loss, named = _step(spec, parts, batch)
    measured = sorted({*_evaluated(parts), *(f"train/{name}" for name in named)})
    parameters = list(parts.model.parameters())
    goal = parts.task.goal.metric
    collected = any(name not in ("loss", "accuracy") and not name.startswith("train/") for name in measured)
    if goal not in (*measured, "train_loss", "eval_loss", "train_accuracy", "eval_accuracy") and not collected:
        raise TargetError(f"best is {str(parts.task.goal)!r}, but evaluation measures {', '.join(measured)}")
    return Checked(
        num_parameters=sum(p.numel() for p in parameters),
        num_trainable=sum(p.numel() for p in parameters if p.requires_grad),
        steps_per_epoch=spec.steps_per_epoch or parts.train_feed.steps_per_epoch // workers,
        batch=shapes(batch),
        loss=loss,
        metrics=measured,
        best=str(parts.task.goal),
        notes=parts.task.notes,
    )


def _step(spec: JobSpec, parts: Parts, batch: Any) -> tuple[float, list[str]]:
    searches = is_search_step(spec.optimizer, step=0, step_in_epoch=0)
    stepped = Stepper(spec, parts, "cpu").step(batch, number=0, search_alpha=searches)
    for value in stepped.values.values():
        as_sum(value)  # so that one of a wrong type is told here
    loss = stepped.loss.item()
    if not math.isfinite(loss):
        raise TargetError(f"the loss of the first batch is {loss:g}")
    return loss, list(stepped.values)


@torch.inference_mode()
def _evaluated(parts: Parts) -> list[str]:
    parts.model.eval()
    names: set[str] = set()
    for number, (set_name, feed) in enumerate(parts.eval_feeds.items()):
        batch = next(iter(feed.batches()), None)
        if batch is None:
            raise TargetError(f"evaluation set {set_name!r} has no examples")
        measured = dict(parts.task.evaluate(parts.model, batch))
        found = {name for name, value in measured.items() if isinstance(value, Sum)}
        collected = {n: (v.prediction, v.target) for n, v in measured.items() if not isinstance(v, Sum)}
        if collected:
            found |= parts.task.metrics(collected).keys()
        names |= found if number == 0 else {f"{set_name}/{name}" for name in found}
    return sorted(names)


def shapes(batch: Any) -> str:
    """Return a batch's structure with the shapes and types of its tensors."""
    if isinstance(batch, Tensor):
        return f"{str(batch.dtype).removeprefix('torch.')}{list(batch.shape)}"
    if hasattr(batch, "items"):
        return "{" + ", ".join(f"{key}: {shapes(value)}" for key, value in batch.items()) + "}"
    if isinstance(batch, list | tuple):
        return "(" + ", ".join(shapes(part) for part in batch) + ")"
    return type(batch).__name__


def _check_script(spec: JobSpec, context: RankContext) -> Checked:
    """Look at a script without running it: it is there, it is Python, and what it imports can be found."""
    entrypoint = spec.entrypoint
    if entrypoint is None or context.code_dir is None:
        raise TargetError("an entrypoint needs code: give `code: .`")
    path = context.code_dir / entrypoint.file
    if not path.is_file():
        raise TargetError(f"entrypoint {entrypoint.file}: the code has no such file")
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    missing = sorted({name for name in _imported(tree) if _is_missing(name)})
    if missing:
        raise TargetError(f"entrypoint {entrypoint.file} imports {', '.join(missing)}, not found on this node")
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    if entrypoint.function is not None and entrypoint.function not in names:
        raise TargetError(f"entrypoint {entrypoint.file} has no function {entrypoint.function!r}")
    return Checked(best=spec.best)


def _imported(tree: ast.Module) -> list[str]:
    found: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(node.module)
    return found


def _is_missing(name: str) -> bool:
    try:
        return importlib.util.find_spec(name.partition(".")[0]) is None
    except (ImportError, ValueError):
        return True


def scratch_context(
    dataset_root: Path | None,
    code_dir: Path | None,
    folder: Path,
    *,
    allowed_packages: tuple[str, ...] = (),
    model_root: Path | None = None,
) -> RankContext:
    """Return the context of a single CPU rank that works below a folder of its own."""
    return RankContext(
        rank=0,
        world_size=1,
        device="cpu",
        dataset_root=dataset_root,
        checkpoint_dir=folder / "checkpoints",
        model_root=model_root,
        allowed_packages=allowed_packages,
        code_dir=code_dir,
    )
