"""A script's side of a run: what it is told, what it reports, where it saves. Works without the service too."""

import hashlib
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn

MANIFEST = "manifest.json"
STATE = "state.pt"
KEEP_LAST = 2
_LINE_INTERVAL_S = 1.0
_PREFIX = "step-"


class Host(Protocol):
    """Who listens: the service's rank, or the terminal."""

    def step(self, step: int, loss: torch.Tensor | float | None) -> None:
        """Take the position and the loss of a step; a tensor is read only if somebody looks."""

    def alpha(self, epoch: int, step: int, optimizer: Any) -> None:
        """Take a search for alpha* that an optimizer has just made."""

    def epoch(self, epoch: int, step: int, values: Mapping[str, float], optimizer: Any) -> None:
        """Take what an epoch has measured; `loss` is among the values."""

    def stop_reason(self) -> str | None:
        """Return why the run should stop, if it should."""

    def may_publish(self) -> bool:
        """Return whether this run may still put a checkpoint in place; everything reported is stored then."""

    def published(self, step: int, name: str, size_bytes: int, sha256: str) -> None:
        """Hear that a checkpoint is in place."""

    def state(self) -> dict[str, Any]:
        """Return what has been reported so far, as plain values, for a checkpoint."""

    def restored(self, state: Mapping[str, Any] | None) -> None:
        """Hear where the run goes on from; None at the start."""


class Run:
    """A run as its script sees it. Every rank has one; reports and checkpoints are rank 0's.

    Args:
        host: who listens.
        config: what the job says to its script.
        rank: of this process.
        world_size: ranks of the run.
        device: of this rank, `cpu` or `cuda:0`.
        data_root: the folder of the datasets.
        folder: for checkpoints, shared by all ranks.
        epochs: that the job asks for, in a study what its compute leaves; None without a service.
        seed: of the job, with which Python's, numpy's and torch's generators have been seeded; None without a service.
    """

    def __init__(  # noqa: PLR0913 - what a run is
        self,
        host: Host,
        *,
        config: Mapping[str, Any],
        rank: int,
        world_size: int,
        device: str,
        data_root: Path | None,
        folder: Path,
        epochs: int | None = None,
        seed: int | None = None,
    ) -> None:
        self.config = dict(config)
        self.rank = rank
        self.world_size = world_size
        self.device = device
        self.dir = folder
        self.epochs = epochs
        self.seed = seed
        self.was_told_to_stop = False
        self._host = host
        self._data_root = data_root
        self._step = 0
        self._epoch = 0
        found = self.latest_checkpoint()
        state = None if found is None else json.loads((found / MANIFEST).read_text())["state"]
        host.restored(state)
        if state is not None:
            self._step, self._epoch = int(state["step"]), int(state["epochs_done"])

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def data(self, name: str) -> Path:
        """Return a dataset's folder or file below the datasets' root.

        Raises:
            FileNotFoundError: there is none.
        """
        root = self._data_root or Path("data")
        path = root / name
        if ".." in Path(name).parts or not path.exists():
            raise FileNotFoundError(f"no dataset {name!r} below {root}")
        return path

    def report(
        self, *, step: int, epoch: int | None = None, loss: Any = None, optimizer: Any = None, **metrics: Any
    ) -> None:
        """Tell where the run is and what it has measured; call it as often as you like, on every rank or on rank 0.

        Args:
            step: training steps done since the start of the run.
            epoch: the epoch, from 1, that has ended with this step: then everything else becomes a row.
            loss: of the step, or of the epoch. Tensors are read only when somebody looks.
            optimizer: for alpha*, its angle and its curve, and what the run has cost.
            metrics: of the epoch, by name; `eval_loss` and `accuracy` (evaluation's) have fields of their own.

        Raises:
            ValueError: an epoch without a loss.
        """
        self._step = step
        if not self.is_first:
            return
        telemetry = getattr(optimizer, "telemetry", None)
        if getattr(telemetry, "curve", None) is not None:
            self._host.alpha(self._epoch + 1, step, optimizer)
        if epoch is None:
            self._host.step(step, loss if loss is None or isinstance(loss, torch.Tensor) else float(loss))
            return
        if loss is None:
            raise ValueError(f"report(epoch={epoch}) needs loss=, the epoch's mean")
        self._epoch = epoch
        values = {name: float(value) for name, value in {"loss": loss, **metrics}.items()}
        self._host.epoch(epoch, step, values, optimizer)

    def should_stop(self) -> bool:
        """Return whether to save and end now: paused, preempted, cancelled, or stopped early.

        With several ranks all must call it at the same step: rank 0's answer is sent to the others.
        """
        answer = self.is_first and self._host.stop_reason() is not None
        if self.world_size > 1 and dist.is_initialized():
            device = self.device if dist.get_backend() == "nccl" else "cpu"
            shared = torch.tensor([int(answer)], device=device)
            dist.broadcast(shared, src=0)
            answer = bool(shared.item())
        self.was_told_to_stop = self.was_told_to_stop or answer
        return answer

    @contextmanager
    def checkpoint(self, step: int) -> Iterator[Path]:
        """Yield an empty folder to save into; it is in place when the block ends, whole, or not at all.

        Rank 0's is kept; what other ranks write is thrown away. The newest two are kept.
        """
        self.dir.mkdir(parents=True, exist_ok=True)
        temporary = self.dir / f"tmp-{step}-{self.rank}-{secrets.token_hex(4)}"
        temporary.mkdir()
        try:
            yield temporary
            if self.is_first:
                self._publish(temporary, step)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def latest_checkpoint(self) -> Path | None:
        """Return the folder of the newest checkpoint whose files are as they were written, None without one."""
        return next((path for path in reversed(self._checkpoints()) if _is_intact(path)), None)

    def save(self, step: int, *, model: nn.Module, optimizer: Any = None, **more: Any) -> None:
        """Save model, optimizer, random states and whatever else `torch.save` takes, as a checkpoint."""
        state = {"model": _plain(model).state_dict(), "random": torch.get_rng_state(), "step": step, "more": more}
        if optimizer is not None:
            state["optimizer"] = optimizer.state_dict()
        with self.checkpoint(step) as folder:
            torch.save(state, folder / STATE)

    def restore(self, *, model: nn.Module, optimizer: Any = None) -> int:
        """Bring model, optimizer and torch's random state to the newest checkpoint; return its step, or 0.

        Call it before the model is wrapped in DDP, or after: both take the same checkpoint.
        """
        found = self.latest_checkpoint()
        if found is None:
            return 0
        state = torch.load(found / STATE, map_location="cpu", weights_only=True)
        _plain(model).load_state_dict(state["model"])
        if optimizer is not None:
            optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        return int(state["step"])

    def _publish(self, temporary: Path, step: int) -> None:
        files = {path.name: _digest(path) for path in sorted(temporary.iterdir())}
        size_bytes = sum(path.stat().st_size for path in temporary.iterdir())
        state = {**self._host.state(), "step": step}
        manifest = temporary / MANIFEST
        manifest.write_text(json.dumps({"state": state, "files": files}, sort_keys=True))
        for path in [*temporary.iterdir(), temporary]:
            _sync(path)
        if not self._host.may_publish():
            raise RuntimeError("the checkpoint is not put in place: another attempt owns the job by now")
        name = f"{_PREFIX}{step:09d}"
        target = self.dir / name
        if target.exists():
            target.rename(temporary.with_name(f"{temporary.name}-replaced"))
        temporary.rename(target)
        _sync(self.dir)
        outdated = [*self._checkpoints()[:-KEEP_LAST], *self.dir.glob("tmp-*-0-*")]  # also a killed writer's leftovers
        for path in outdated:
            shutil.rmtree(path, ignore_errors=True)
        self._host.published(step, name, size_bytes, _digest(target / MANIFEST))

    def _checkpoints(self) -> list[Path]:
        found = self.dir.glob(f"{_PREFIX}*") if self.dir.is_dir() else ()
        return sorted(path for path in found if (path / MANIFEST).is_file())


class Terminal:
    """The host of a script that was started by hand: prints lines, never stops it."""

    def __init__(self) -> None:
        self._next_at = 0.0
        self._epochs_done = 0

    def step(self, step: int, loss: torch.Tensor | float | None) -> None:
        """Print a line, at most one a second."""
        if time.monotonic() < self._next_at:
            return
        self._next_at = time.monotonic() + _LINE_INTERVAL_S
        shown = "" if loss is None else f": loss {float(loss):.4f}"
        _print(f"step {step}{shown}")

    def alpha(self, epoch: int, step: int, optimizer: Any) -> None:
        """Print what was found."""
        _print(f"step {step}: alpha* {float(optimizer.telemetry.alpha):.3f}")

    def epoch(self, epoch: int, step: int, values: Mapping[str, float], optimizer: Any) -> None:
        """Print the epoch's values."""
        self._epochs_done = epoch
        _print(f"epoch {epoch}, step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))

    def stop_reason(self) -> str | None:
        """Return nothing."""
        return None

    def may_publish(self) -> bool:
        """Return true: nobody else owns the folder."""
        return True

    def published(self, step: int, name: str, size_bytes: int, sha256: str) -> None:
        """Print it."""
        _print(f"checkpoint {name}, {size_bytes} bytes")

    def state(self) -> dict[str, Any]:
        """Return the last epoch."""
        return {"epochs_done": self._epochs_done}

    def restored(self, state: Mapping[str, Any] | None) -> None:
        """Print it."""
        if state is not None:
            self._epochs_done = int(state["epochs_done"])
            _print(f"going on from step {state['step']}")


_current: Run | None = None


def enter(run: Run | None) -> None:
    """Say what `start` returns in this process; the service's rank calls it before it starts a script."""
    global _current  # noqa: PLW0603 - a script asks for its run without an argument
    _current = run


def start(**defaults: Any) -> Run:
    """Return this process's run: the service's, or one of its own where the script was started by hand.

    Started by hand, also by torchrun, it prints what is reported and keeps checkpoints in `./xsam-run`, from which it
    goes on when it is started again.

    Args:
        defaults: of `config`; what the job says wins.
    """
    global _current  # noqa: PLW0603 - as above
    if _current is None:
        rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        data_root = os.environ.get("XSAM_TRAINING__DATASET_ROOT")
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
        _current = Run(
            Terminal(),
            config={},
            rank=rank,
            world_size=world_size,
            device=device,
            data_root=Path(data_root) if data_root else None,
            folder=Path("xsam-run"),
        )
    _current.config = {**defaults, **_current.config}
    return _current


def _is_intact(folder: Path) -> bool:
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        return all(_digest(folder / name) == expected for name, expected in files.items())
    except (OSError, ValueError, KeyError):
        return False


def _plain(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
