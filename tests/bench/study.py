"""`python -m tests.bench.study [--quick] [FIGURE ...]`: figures of studies, each against its baseline in one run."""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from matplotlib.figure import Figure
from sqlalchemy import text

from tests.bench.figures import percentile, table
from tests.bench.processes import count
from tests.support.served import Served, served, wait_until
from xsam.services.db import migrate
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import JobState
from xsam.services.metrics.models import EpochMetric
from xsam.services.studies import service as study_service
from xsam.services.studies.models import Trial
from xsam.services.studies.spec import StudySpec
from xsam.services.teams.roles import Actor

ROOT = Path(__file__).parents[2]
TINY: dict[str, Any] = {"epochs": 6, "checkpoint": {"every_epochs": 6}, "batch_size": 64}
"""XSAM on the digits with a small CNN: well under a second of training on one thread."""
AT_ONCE = 2
PATIENCE_S = 3600.0
REACHED = 0.97
"""A budget ends a study at the last trial that fits, a little before its limit."""
SETTLE_S = 10.0
"""A service that is up starts its spare processes; after that it is warm and quiet."""
POLL_S = 1.0
"""As often as `xsam study show --follow` looks."""


def overhead(quick: bool) -> str:
    """Figures 1 and 2: what a trial costs besides its training, and 60 trials against a bare loop and two."""
    num, num_plain = (12, 2) if quick else (60, 6)
    jobs = _jobs(num)
    bare = _script("bare_loop", jobs)
    bare_s = bare["total_s"]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        side_by_side = list(threads.map(lambda n: _script("bare_loop", jobs[n::AT_ONCE]), range(AT_ONCE)))
    limit_s = max(one["total_s"] for one in side_by_side)
    beside_s = sum(sum(one["trial_s"]) for one in side_by_side) / num
    with tempfile.TemporaryDirectory() as folder, served(Path(folder) / "data") as running:
        time.sleep(SETTLE_S)
        ours_s = _study_s(running, num)
    plain_s = _script("plain_tune", jobs[:num_plain])["total_s"]
    train_s = sum(bare["trial_s"]) / num
    ours = ours_s / num - train_s / AT_ONCE
    plain = plain_s / num_plain - train_s / AT_ONCE
    rows = [
        ["bare loop", num, f"{bare_s:.1f}", f"{train_s:.2f}", "", ""],
        [f"{AT_ONCE} such loops at once", num, f"{limit_s:.1f}", f"{beside_s:.2f}", "", f"{limit_s / bare_s:.2f}"],
        [f"study, {AT_ONCE} at a time", num, f"{ours_s:.1f}", "", f"{ours:.3f}", f"{ours_s / bare_s:.2f}"],
        ["TorchTrainer in each Tune trial", num_plain, f"{plain_s:.1f}", "", f"{plain:.3f}", ""],
    ]
    header = ["what", "trials", "wall s", "training s each", "overhead s each", "of the bare loop's wall (target 0.60)"]
    return (
        f"{table(header, rows)}\n\nOverhead per trial: {ours / plain:.4f} of the plain pattern (target 1/30 = 0.033)."
    )


def processes(quick: bool) -> str:
    """Figure 2: what processes there are, and what memory they take, while four trials of a study run."""
    base = {**TINY, "epochs": 10_000, "checkpoint": {"every_epochs": 10_000}}
    body = {"base": base, "space": _SPACE, "sampler": {"name": "random"}, "num_trials": 8, "concurrency": 4}
    with tempfile.TemporaryDirectory() as folder, served(Path(folder) / "data", "--num-cpus", "4") as running:
        study_id = _submit(running, body)
        url = f"{running.url}/v1/studies/{study_id}"

        def all_train() -> bool:
            trials = httpx.get(f"{url}/trials?state=running", timeout=60).raise_for_status().json()["items"]
            return sum(trial["epochs_done"] > 0 for trial in trials) == 4

        wait_until(all_train)
        time.sleep(0 if quick else SETTLE_S)
        found = count(running.process.pid)
        httpx.post(f"{url}/cancel", timeout=60).raise_for_status()
    return found


def large_study(quick: bool) -> str:
    """Figure 3: a study of 1,000 finished trials, read over loopback, and what it weighs."""
    num, calls = (1_000, 30) if quick else (1_000, 200)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        database = Database(f"sqlite:///{data / 'xsam.db'}")
        migrate.upgrade(database)
        empty_bytes = _size(database)
        study_id = _fill(database, num)
        per_trial = (_size(database) - empty_bytes) / num
        rows_each = _rows(database) / num
        database.dispose()
        with served(data, "--no-dispatcher") as running:
            times = {name: _times(running.url + path.format(study_id), calls) for name, path in _READS.items()}
    rows = [
        [name, f"{1e3 * percentile(s, 0.5):.0f}", f"{1e3 * percentile(s, 0.99):.0f}", "300"]
        for name, s in times.items()
    ]
    note = f"{rows_each:.1f} rows and {per_trial / 1024:.1f} KiB a trial (10 epochs each, no alpha estimates)."
    return f"{table(['read', 'p50 ms', 'p99 ms', 'target p99'], rows)}\n\n{note}"


def quality(quick: bool) -> str:
    """Figure 4: best accuracy for the same gradient evaluations, by early stopping; three seeds, a table and a plot."""
    seeds = range(1 if quick else 3)
    budget = 20_000 if quick else 40_000
    curves: dict[str, list[list[tuple[int, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder, served(Path(folder) / "data") as running:
        for seed in seeds:
            for name, stopping in _STOPPINGS.items():
                curves.setdefault(name, []).append(_search(running, stopping, seed, budget))
    marks = [budget // 4, budget // 2, budget]
    rows = [[name, *(_at(runs, mark) for mark in marks)] for name, runs in curves.items()]
    path = Path("bench-study-quality.png")
    _draw(curves, budget, path)
    header = ["early stopping", *(f"best accuracy at {mark:,} gradient evaluations" for mark in marks)]
    return f"{table(header, rows)}\n\nMean and range over {len(seeds)} seeds; the curves are in {path}."


_SPACE = {"optimizer.rho": {"type": "log_uniform", "low": 0.02, "high": 0.2}}
_READS = {
    "show": "/v1/studies/{}",
    "trials, best first": "/v1/studies/{}/trials?sort=-value",
    "plots": "/v1/studies/{}/plots",
}
_QUALITY_BASE = {
    "dataset": {"name": "digits", "label_noise": 0.4, "train_size": 720},
    "epochs": 12,
    "batch_size": 60,
    "checkpoint": {"every_epochs": 12},
}
_STOPPINGS = {
    "none": {"early_stopping": {"name": "none"}, "compute": "epochs"},
    "ASHA in epochs": {"early_stopping": {"name": "asha", "unit": "epochs", "grace": 1 / 12}, "compute": "epochs"},
    "ASHA in gradient evaluations": {"early_stopping": {"name": "asha", "grace": 1 / 12}, "compute": "epochs"},
}


def _jobs(num: int) -> list[dict[str, Any]]:
    return [{**TINY, "optimizer": {"variant": "xsam", "rho": 0.02 + 0.002 * number}} for number in range(num)]


def _script(module: str, jobs: list[dict[str, Any]]) -> dict[str, Any]:
    command = [sys.executable, "-m", f"tests.bench.{module}"]
    done = subprocess.run(command, input=json.dumps(jobs), capture_output=True, text=True, check=True, cwd=ROOT)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _study_s(running: Served, num: int) -> float:
    """Return the seconds from the request to the end of a study of tiny trials on a warm service."""
    values = [0.02 + 0.002 * number for number in range(num)]
    body = {
        "base": TINY,
        "space": {"optimizer.rho": {"type": "choice", "values": values}},
        "sampler": {"name": "grid"},
        "concurrency": AT_ONCE,
    }
    study = _wait(running, _submit(running, body))
    created_at, finished_at = (datetime.fromisoformat(study[name]) for name in ("created_at", "finished_at"))
    return (finished_at - created_at).total_seconds()


def _submit(running: Served, body: dict[str, Any]) -> str:
    return str(httpx.post(f"{running.url}/v1/studies", json=body, timeout=60).raise_for_status().json()["id"])


def _wait(running: Served, study_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        study: dict[str, Any] = httpx.get(f"{running.url}/v1/studies/{study_id}", timeout=60).raise_for_status().json()
        if study["state"] in ("succeeded", "failed", "cancelled"):
            if study["state"] != "succeeded":
                raise RuntimeError(f"study {study_id} is {study['state']}: {study['failure']}")
            return study
        time.sleep(POLL_S)
    raise TimeoutError(f"study {study_id} did not end")


def _times(url: str, calls: int) -> list[float]:
    seconds = []
    with httpx.Client(timeout=60) as http:
        for _ in range(calls):
            began_at = time.perf_counter()
            http.get(url).raise_for_status()
            seconds.append(time.perf_counter() - began_at)
    return seconds[1:]  # the first opens connections


def _fill(database: Database, num: int) -> str:
    """Write a finished study of two axes with ten epochs in each trial."""
    spec = StudySpec.model_validate({"preset": "rho-k", "sampler": {"name": "random"}, "num_trials": num})
    with database.unit_of_work() as session:
        job, _ = study_service.submit(session, spec, actor=Actor("bench", "default"))
        job.state = JobState.SUCCEEDED
        for number in range(1, num + 1):
            _add_trial(session, job.id, number, spec)
        return job.id


def _add_trial(session: Any, study_id: str, number: int, spec: StudySpec) -> None:
    rho, k = 0.01 * 50 ** ((number * 0.618) % 1.0), (1, 2, 3, 5)[number % 4]
    value = 0.9 - 0.1 * abs(math.log(rho / 0.1)) - 0.01 * k + 0.001 * (number % 7)
    document = spec.base.model_dump(mode="json")
    summary = {"train_s": 1.0, "grad_evals": 440, "probe_forwards": 210}
    job = Job(
        kind="trial",
        team="default",
        submitted_by="bench",
        spec=document,
        num_workers=1,
        gpus_per_worker=0,
        cpus_per_worker=1,
        num_epochs=10,
        epochs_done=10,
        state=JobState.SUCCEEDED,
        summary=summary,
        started_at=db_now(),
        finished_at=db_now(),
    )
    session.add(job)
    session.flush()
    params = {"optimizer.rho": rho, "optimizer.ascent_steps": k}
    common = {"study_id": study_id, "number": number, "arm": "xsam", "phase": "search", "config": number - 1, "seed": 0}
    session.add(Trial(job_id=job.id, params=params, value=value, grad_evals=440, is_stopped_early=False, **common))
    for epoch in range(1, 11):
        measured = dict.fromkeys(("train_loss", "train_accuracy", "eval_loss", "eval_accuracy", "lr", "epoch_s"), 0.5)
        counts = {"step": 22 * epoch, "grad_evals": 44 * epoch, "probe_forwards": 21 * epoch}
        session.add(EpochMetric(job_id=job.id, epoch=epoch, attempt=1, samples_per_s=1e4, **measured, **counts))


def _size(database: Database) -> int:
    with database.unit_of_work() as session:
        pages, page = (session.execute(text(f"PRAGMA {name}")).scalar_one() for name in ("page_count", "page_size"))
    return int(pages) * int(page)


def _rows(database: Database) -> int:
    with database.read() as session:
        tables = ("jobs", "trials", "epoch_metrics", "job_events", "job_attempts")
        return sum(int(session.execute(text(f"SELECT count(*) FROM {name}")).scalar_one()) for name in tables)


def _search(running: Served, stopping: dict[str, Any], seed: int, budget: int) -> list[tuple[int, float]]:
    """Return the best accuracy so far against the gradient evaluations used so far, trial by trial as they ended."""
    body = {
        "base": {**_QUALITY_BASE, "seed": seed},
        "space": {
            "optimizer.rho": {"type": "log_uniform", "low": 0.01, "high": 0.5},
            "optimizer.rho_max": {"type": "ratio", "of": "optimizer.rho", "factor": 2.0},
            "optimizer.ascent_steps": {"type": "choice", "values": [1, 2, 3]},
            "optimizer.base.lr": {"type": "log_uniform", "low": 0.003, "high": 0.3},
        },
        "sampler": {"name": "random", "seed": seed},
        "num_trials": 1_500,  # more than the budget pays for
        "concurrency": AT_ONCE,
        "budget": {"grad_evals": budget},
        **stopping,
    }
    study_id = _submit(running, body)
    _wait(running, study_id)
    items: list[dict[str, Any]] = []
    url = f"{running.url}/v1/studies/{study_id}/trials"
    cursor = None
    while True:
        params = {"limit": 500, **({"cursor": cursor} if cursor else {})}
        page = httpx.get(url, params=params, timeout=60).raise_for_status().json()
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    curve, used, best = [], 0, 0.0
    for trial in sorted((t for t in items if t["finished_at"]), key=lambda t: str(t["finished_at"])):
        used += trial["grad_evals"] or 0
        best = max(best, trial["value"] or 0.0)
        curve.append((used, best))
    return curve


def _at(runs: list[list[tuple[int, float]]], mark: int) -> str:
    if any(run[-1][0] < REACHED * mark for run in runs):
        return "ended before"  # all trials were used up: no comparison for the same compute
    values = [_best(run, mark) for run in runs]
    mean = sum(values) / len(values)
    return f"{100 * mean:.1f} % ({100 * min(values):.1f} to {100 * max(values):.1f})"


def _best(run: list[tuple[int, float]], mark: int) -> float:
    return max((best for used, best in run if used <= mark), default=0.0)


def _draw(curves: dict[str, list[list[tuple[int, float]]]], budget: int, path: Path) -> None:
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    for (name, runs), color in zip(curves.items(), ("#777777", "#2b6cb0", "#c05621"), strict=False):
        for number, run in enumerate(runs):
            label = name if number == 0 else None
            axes.step([u for u, _ in run], [100 * b for _, b in run], where="post", color=color, label=label, alpha=0.8)
    axes.set_xlabel("gradient evaluations of all trials so far")
    axes.set_ylabel("best evaluation accuracy so far, %")
    # The first few trials are far below all others and would flatten the rest.
    early = min(_best(run, budget // 20) for runs in curves.values() for run in runs)
    axes.set_ylim(bottom=100 * early - 1)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path)


FIGURES: dict[str, Callable[[bool], str]] = {
    "overhead": overhead,
    "processes": processes,
    "large": large_study,
    "quality": quality,
}


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", nargs="*", choices=[*FIGURES, []], help="by default all")
    parser.add_argument("--quick", action="store_true", help="fewer trials, calls and seeds")
    arguments = parser.parse_args()
    for name in arguments.figures or FIGURES:
        print(f"## {name}\n\n{FIGURES[name](arguments.quick)}\n", flush=True)


if __name__ == "__main__":
    main()
