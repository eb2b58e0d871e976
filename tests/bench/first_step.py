"""Time from the request to the end of the first training step, service against scripts, in one run."""

import argparse
import contextlib
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import select

from tests.bench import upload
from tests.bench.figures import median, table
from tests.support.buckets import new_bucket, s3_server
from tests.support.reachable_python import reachable_python
from tests.support.served import Served, served
from tests.support.wheels import wheel
from xsam.api.client import Client
from xsam.services.jobs.models import JobAttempt

_SPEC = {"epochs": 1, "optimizer": {"variant": "xsam", "rho": 0.05}}
_BUILT_IN = "built-in"
_PRICES = Path(__file__).parents[2] / "deploy" / "examples" / "prices"
_CODE = {"code": str(_PRICES), "task": {"target": "prices:task"}, "epochs": 1, "batch_size": 32}
_AT_REST_CPU_S = 0.25
"""Of all processes in a second: the turns of the dispatcher, the look of a runner; a process that starts takes more."""


def measure(repeats: int) -> str:
    """Return the table of both figures; service and baseline take turns."""
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, served(Path(folder) / "data") as service:
        for _ in range(repeats):
            one = [("service, 1 worker", _service_s(service, 1)), ("script, 1 process", _script_s("plain_script")[0])]
            two = [("service, 2 workers", _service_s(service, 2))]
            script_s, fit_s = _script_s("plain_torch_trainer")
            two += [("TorchTrainer script, 2 workers", script_s), ("its fit() alone", fit_s)]
            for name, seconds in one + two:
                times.setdefault(name, []).append(seconds)
    medians = {name: median(values) for name, values in times.items()}
    rows = []
    for ours, theirs, target in (
        ("service, 1 worker", "script, 1 process", 0.5),
        ("service, 2 workers", "TorchTrainer script, 2 workers", 0.8),
        ("service, 2 workers", "its fit() alone", 0.8),
    ):
        ratio = medians[ours] / medians[theirs]
        rows.append([ours, f"{medians[ours]:.2f}", theirs, f"{medians[theirs]:.2f}", f"{ratio:.3f}", f"<= {target}"])
    return table(["service", "s", "baseline", "s", "ratio", "target"], rows)


def measure_gpus(repeats: int) -> str:
    """Return the table of jobs on logical GPUs against jobs on CPUs, in turns on one service; both train on the CPU."""
    times: dict[tuple[int, int], list[float]] = {}
    environment = {**os.environ, "XSAM_TRAINING__DEVICE": "cpu"}
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder) / "data", "--num-gpus", "2", environment=environment) as service,
    ):
        _service_s(service, 1, gpus=1)
        for _ in range(repeats):
            for workers in (1, 2):
                for gpus in (0, 1):
                    times.setdefault((workers, gpus), []).append(_service_s(service, workers, gpus=gpus))
    rows = []
    for workers in (1, 2):
        on_cpus, on_gpus = median(times[workers, 0]), median(times[workers, 1])
        name = f"{workers} worker{'s' if workers > 1 else ''}"
        rows.append([name, f"{on_gpus:.2f}", f"{on_cpus:.2f}", f"{on_gpus / on_cpus:.3f}", "<= 1.2"])
    return table(["service", "with a GPU each, s", "on CPUs, s", "ratio", "target"], rows)


def measure_code(repeats: int) -> str:
    """Return the table of jobs that bring their code against built-in ones, in turns on one service.

    Code runs in a process of its own, so each turn waits until the next one is warm, as it is on a service at rest.
    """
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        wheels = Path(folder) / "wheels"
        wheel(wheels, "tinyloss")
        environment = {**os.environ, "XSAM_CODE__INDEX": str(wheels)}
        with served(Path(folder) / "data", environment=environment) as service, Client(service.url) as client:
            bundle, _ = client.bundles.resolve(_CODE, Path())
            packages, _ = client.requirements.resolve({**bundle, "requirements": ["tinyloss"]}, Path())
            bodies = {_BUILT_IN: _SPEC, "a bundle": bundle, "a bundle, cached environment": packages}
            for body in bodies.values():  # unpacked and installed once a node
                _post_to_first_step_s(service, body)
            for _ in range(repeats):
                for name, body in bodies.items():
                    _wait_until_at_rest(service)
                    times.setdefault(name, []).append(_post_to_first_step_s(service, body))
    built_in = median(times.pop(_BUILT_IN))
    rows = [[_BUILT_IN, f"{built_in:.2f}", "", ""]]
    for name, values in times.items():
        rows.append([name, f"{median(values):.2f}", f"{median(values) - built_in:+.2f}", "<= +1.5"])
    return table(["POST to first step", "s", "beyond a built-in job, s", "target"], rows)


def measure_bucket(repeats: int) -> str:
    """Return the table of jobs whose code no node has yet, fetched from a bucket and from a folder, in turns."""
    times: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        endpoint = stack.enter_context(s3_server())
        bucket = {"XSAM_ARTIFACTS__URL": new_bucket(endpoint), "XSAM_ARTIFACTS__ENDPOINT": endpoint}
        services = {}
        for place, more in {"a folder": {}, "a bucket": bucket}.items():
            data_dir = Path(folder) / place.removeprefix("a ")
            services[place] = stack.enter_context(served(data_dir, environment={**os.environ, **more}))
        for turn in range(repeats + 1):
            code = Path(folder) / f"code-{turn}"
            shutil.copytree(_PRICES, code)
            (code / "turn.txt").write_text(str(turn))  # another content is another bundle
            for place, service in services.items():
                with Client(service.url) as client:
                    body, _ = client.bundles.resolve({**_CODE, "code": str(code)}, Path())
                _wait_until_at_rest(service)
                seconds = _post_to_first_step_s(service, body)
                if turn:  # the first one also reads in what later ones find in memory
                    times.setdefault(place, []).append(seconds)
    medians = {place: median(values) for place, values in times.items()}
    rows = [[place, f"{found:.2f}", f"{found / medians['a folder']:.2f}"] for place, found in medians.items()]
    return table(["POST to first step, new code from", "s", "ratio"], rows)


def measure_isolation(repeats: int) -> str:
    """Return the table of built-in jobs whose rank becomes its team's user against others, in turns on two services.

    Such a rank is used once, so each turn waits until the next one is warm, as it is on a service at rest.
    """
    times: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        services = {}
        for name, settings in (
            ("as Ray's user", {}),
            ("as its team's user", {"XSAM_ISOLATION__FIRST_USER_ID": "60000"}),
        ):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
            folder.chmod(0o711)
            environment = {**os.environ, **settings, "XSAM_CODE__NODE_DIR": str(folder / "code")}
            python = reachable_python(folder)
            services[name] = stack.enter_context(served(folder / "data", python=python, environment=environment))
        for _ in range(repeats):
            for name, service in services.items():
                _wait_until_at_rest(service)
                times.setdefault(name, []).append(_post_to_first_step_s(service, _SPEC))
    shared, own = (median(values) for values in times.values())
    rows = [[name, f"{median(values):.2f}"] for name, values in times.items()]
    return table(["POST to first step", "s"], [*rows, ["ratio", f"{own / shared:.3f}"]])


def _wait_until_at_rest(service: Served) -> None:
    """Wait until the service and all of its processes have taken next to nothing of a processor for a second."""
    before = math.inf
    while True:
        time.sleep(1.0)
        used = _cpu_s(service)
        if 0 <= used - before < _AT_REST_CPU_S:
            return
        before = used


def _cpu_s(service: Served) -> float:
    total = 0.0
    for process in [root := psutil.Process(service.process.pid), *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            used = process.cpu_times()
            total += used.user + used.system
    return total


def _service_s(service: Served, workers: int, *, gpus: int = 0) -> float:
    return _post_to_first_step_s(service, {**_SPEC, "resources": {"num_workers": workers, "gpus_per_worker": gpus}})


def _post_to_first_step_s(service: Served, body: Mapping[str, Any]) -> float:
    asked_at = time.time()
    job_id = httpx.post(service.url + "/v1/jobs", json=body).raise_for_status().json()["id"]
    while httpx.get(f"{service.url}/v1/jobs/{job_id}").json()["state"] != "succeeded":
        time.sleep(0.1)
    time.sleep(0.5)  # the runner and its ranks go back to the pool
    with service.database.read() as session:
        first_step_at = session.scalar(select(JobAttempt.first_step_at).where(JobAttempt.job_id == job_id))
    if first_step_at is None:
        raise RuntimeError(f"job {job_id} has no first step")
    return first_step_at.timestamp() - asked_at


def _script_s(module: str) -> tuple[float, float]:
    """Return seconds to the first step from the start of the script, and from its call of `fit`."""
    started_at = time.time()
    command = [sys.executable, "-m", f"tests.bench.{module}"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    instants = {name: float(value) for name, value in re.findall(r"(\w+_at) ([\d.]+)", output)}
    step_at = instants["first_step_at"]
    return step_at - started_at, step_at - instants.get("fit_at", started_at)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=list(MEASURED), action="append", help="by default all")
    given = parser.parse_args()
    for name in given.only or MEASURED:
        print(MEASURED[name](given.repeats))
        print()


MEASURED = {
    "scripts": measure,
    "gpus": measure_gpus,
    "code": measure_code,
    "bucket": measure_bucket,
    "isolation": measure_isolation,
    "upload": upload.measure,
}


if __name__ == "__main__":
    main()
