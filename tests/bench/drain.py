"""Seconds without training of each job on a node that is drained, beside those of a plain start of as many jobs.

Two nodes with logical GPUs on this machine: all jobs run on the first one until it is drained, and go on on the other.
Their steps wait as if a GPU worked, so that the processors are left to what is measured.
"""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.figures import median, table
from tests.bench.submit_latency import scratch_postgres
from tests.support.live_service import LiveService, Nodes, live_service
from xsam.services.cluster import cordons
from xsam.services.jobs.states import JobState

_SETTLE_S = 5.0
_STEP_S = 0.05
_LEASE_S = 60.0
"""Two processors that start a dozen processes keep a runner waiting for longer than the usual lease."""


def measure(num_jobs: int, *, warm: int, database_url: str | None) -> str:
    """Return the table of one drain.

    Args:
        num_jobs: all of which run on the node, and fit on the other.
        warm: processes that the dispatcher keeps ready on each node.
        database_url: where the rows go; None is a SQLite file.
    """
    with (
        tempfile.TemporaryDirectory(prefix="xsam-drain-") as folder,
        _two_nodes(num_jobs) as nodes,
        live_service(
            Path(folder),
            num_cpus=None,
            warm_processes=warm,
            database_url=database_url,
            device="cpu",
            allowed_packages=("tests",),
            lease_s=_LEASE_S,
            address=nodes.address,
        ) as live,
    ):
        live.turn_until(lambda: len(live.dispatcher.nodes) == 3)
        return _report(*_once(live, Path(folder), num_jobs))


@contextlib.contextmanager
def _two_nodes(num_jobs: int) -> Iterator[Nodes]:
    nodes = Nodes()
    try:
        for _ in range(2):
            nodes.add(num_cpus=num_jobs, num_gpus=num_jobs)
        yield nodes
    finally:
        nodes.shutdown()


def _once(live: LiveService, folder: Path, num_jobs: int) -> tuple[list[float], list[float]]:
    """Return for each job the seconds from its submission to its first step, and those without a step in the move."""
    first, second = (node.id for node in live.dispatcher.nodes if node.num_gpus)
    _cordon(live, second, None)
    files = [folder / f"steps-{number}" for number in range(num_jobs)]
    began = time.time()
    jobs = [_submit(live, file) for file in files]
    live.turn_until(lambda: all(_steps(file) for file in files))
    started = [_steps(file)[0] - began for file in files]
    settled_at = time.monotonic() + _SETTLE_S
    live.turn_until(lambda: time.monotonic() > settled_at and live.dispatcher.is_warm())
    with live.database.unit_of_work() as session:
        cordons.lift(session, second)
    drained_at = time.time()
    _cordon(live, first, 0.0)
    live.turn_until(lambda: all(live.job(job).attempt == 2 and live.job(job).state == JobState.RUNNING for job in jobs))
    live.turn_until(lambda: all(_gap(live, job, file) is not None for job, file in zip(jobs, files, strict=True)))
    if any(live.job(job).placement != [second] for job in jobs):
        outcomes = [[attempt.outcome for attempt in live.attempts(job)] for job in jobs]
        raise RuntimeError(f"not every job was moved once, by the drain: {outcomes}")
    print(f"drained in {time.time() - drained_at:.1f} s")
    gaps = [_gap(live, job, file) for job, file in zip(jobs, files, strict=True)]
    for job in jobs:
        live.cancel(job)
    for job in jobs:
        live.finish(job)
    return started, [gap for gap in gaps if gap is not None]


def _submit(live: LiveService, file: Path) -> str:
    options = {"file": str(file), "wait_s": _STEP_S, "case": "mlp", "num_examples": 6400}
    task = {"target": "tests.bench.loop_tasks:Timed", "options": options}
    return live.submit(epochs=100_000, optimizer={"variant": "sgd"}, task=task, resources={"gpus_per_worker": 1})


def _cordon(live: LiveService, node_id: str, drain_within_s: float | None) -> None:
    with live.database.unit_of_work() as session:
        cordons.put(session, node_id, reason=None, by="bench", drain_within_s=drain_within_s)


def _steps(file: Path) -> Sequence[float]:
    return [float(line) for line in file.read_text().splitlines()] if file.exists() else []


def _gap(live: LiveService, job_id: str, file: Path) -> float | None:
    """Return the time between the last step of the job's first attempt and the first of its second, once that is."""
    ended_at = live.attempts(job_id)[0].finished_at
    if ended_at is None:
        return None
    before = [step for step in _steps(file) if step <= ended_at.timestamp()]
    after = [step for step in _steps(file) if step > ended_at.timestamp()]
    return after[0] - before[-1] if after else None


def _report(started: Sequence[float], gaps: Sequence[float]) -> str:
    rows = [
        [f"a plain start of {len(started)} jobs, from submission to first step", *_both(started)],
        [f"{len(gaps)} jobs moved by a drain, from last step to first step", *_both(gaps)],
        ["ratio", *(f"{one / other:.2f}" for one, other in zip(_ends(gaps), _ends(started), strict=True))],
    ]
    return table(["seconds", "median", "worst"], rows)


def _ends(times: Sequence[float]) -> tuple[float, float]:
    return median(times), max(times)


def _both(times: Sequence[float]) -> list[str]:
    return [f"{one:.2f}" for one in _ends(times)]


def main() -> None:
    """Print the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--warm", type=int, default=4, help="processes kept ready on each node; 4 as by default")
    parser.add_argument("--postgres", action="store_true", help="keep rows on the test server instead of in SQLite")
    given = parser.parse_args()
    with scratch_postgres() if given.postgres else contextlib.nullcontext() as url:
        print(measure(given.jobs, warm=given.warm, database_url=url))


if __name__ == "__main__":
    main()
