"""`xsam demo`: the whole service on this machine, three real jobs over REST, one table and one picture."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from xsam.api.cli.demo.report import draw, result_table
from xsam.api.cli.demo.specs import EPOCHS, LABEL_NOISE, demo_specs
from xsam.api.cli.options import CommandError, reported, settings_with
from xsam.api.cli.show import err, out
from xsam.api.cli.watching import Watched, watch
from xsam.api.client import Client
from xsam.api.client.errors import ApiError, UnreachableError
from xsam.api.server.server import bind
from xsam.services.jobs.states import JobState
from xsam.services.settings import ApiSettings, DatabaseSettings, RayCluster, environment_for

_HOST = "127.0.0.1"
_READY_WITHIN_S = 120.0
_STOPPED_WITHIN_S = 45.0
_LOOK_EVERY_S = 0.3
_NUM_CPUS = 2
"""What the largest of the three jobs needs; a machine with one core takes turns."""
_LOG_LINES = 15


def demo(
    output_dir: Annotated[Path, typer.Option(help="Gets the picture, the logs and the demo's own database.")] = Path(
        "demo-output"
    ),
) -> None:
    """Train SGD, SAM and XSAM on digits with noisy labels through the real service, and compare them."""
    with reported():
        _run(output_dir)


def _run(output_dir: Path) -> None:
    started_s = time.monotonic()
    with running_service(output_dir) as url, Client(url) as client:
        out.print(f"Service ready at {url} after {time.monotonic() - started_s:.1f} s.")
        out.print(f"Watch it in a browser while it runs: [bold]{url}/home[/]")
        jobs = [Watched(client.submit(spec)) for spec in demo_specs()]
        out.print(
            f"Submitted {len(jobs)} jobs: digits, {LABEL_NOISE:.0%} of the training labels redrawn, {EPOCHS} epochs."
        )
        try:
            watch(client, jobs, out)
        except KeyboardInterrupt as e:
            raise CommandError("stopped before the jobs had ended") from e
    report(jobs, output_dir / "demo.png")
    out.print(f"Done in {time.monotonic() - started_s:.0f} s; everything that was started has ended.")


def report(jobs: list[Watched], picture: Path) -> None:
    """Print the table and draw the picture.

    Raises:
        CommandError: a job did not succeed.
    """
    out.print(result_table(jobs))
    failed = [watched for watched in jobs if watched.job.state is not JobState.SUCCEEDED]
    if failed:
        reasons = [
            f"{one.title} {one.job.state}: {one.job.failure.message if one.job.failure else ''}" for one in failed
        ]
        raise CommandError("; ".join(reasons))
    draw(jobs, picture)
    out.print(f"Curves and the alpha* trajectory: {escape(str(picture))}")


@contextmanager
def running_service(output_dir: Path) -> Iterator[str]:
    """Run `xsam serve` with a database of its own and yield its URL once jobs will run.

    Raises:
        CommandError: it did not get ready; the message has the last lines of its logs.
    """
    data_dir = output_dir / "service"
    shutil.rmtree(data_dir, ignore_errors=True)  # what an earlier demo left
    data_dir.mkdir(parents=True)
    with bind(_HOST, 0) as free:
        port = free.getsockname()[1]
    # Groups given whole: nothing of the caller's environment points the demo at another database or cluster.
    settings = settings_with(
        {
            "data_dir": data_dir,
            "api": ApiSettings(host=_HOST, port=port),
            "database": DatabaseSettings(),
            "ray": RayCluster(num_cpus=max(_NUM_CPUS, os.cpu_count() or 1)),
        }
    )
    log_path = output_dir / "serve.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "xsam.api", "serve"],
            env=environment_for(settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    url = f"http://{_HOST}:{port}"
    try:
        _wait_until_ready(url, process, (log_path, data_dir / "logs" / "dispatcher.err"))
        yield url
    finally:
        _stop(process)


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log_paths: tuple[Path, ...]) -> None:
    deadline_s = time.monotonic() + _READY_WITHIN_S
    reason = f"it has not answered within {_READY_WITHIN_S:g} s"
    with Client(url, num_tries=1) as client:
        while time.monotonic() < deadline_s and process.poll() is None:
            try:
                client.readiness()
            except (UnreachableError, ApiError) as e:
                reason = str(e)
            else:
                return
            time.sleep(_LOOK_EVERY_S)
    if process.returncode is not None:
        reason = f"it ended with exit code {process.returncode}"
    tails = "\n".join(f"{path}:\n{_tail(path)}" for path in log_paths)
    raise CommandError(f"the service did not get ready: {reason}\n{tails}")


def _tail(path: Path) -> str:
    if not path.exists():
        return "  (empty)"
    return "\n".join(f"  {line}" for line in path.read_text(errors="replace").splitlines()[-_LOG_LINES:])


def _stop(process: "subprocess.Popen[bytes]") -> None:
    err.print("Stopping the service ...")
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()  # its dispatcher sees that its parent is gone, and ends
        process.wait()
