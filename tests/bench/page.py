"""Figures of the page: bytes and time of each view, the list of 10,000 jobs, a change, a long log: `make bench-page`.

Over rows alone (SQLite, nothing trains), with a real Chromium on loopback. Times depend on the machine and on what else
it does; bytes and requests do not.
"""

import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
from playwright.sync_api import Browser

from tests.support.browser import chromium
from tests.support.row_runner import RowRunner
from tests.support.served import Served, served
from xsam.services.jobs.models import Job
from xsam.services.settings import Settings

NUM_JOBS = 10_000
LIST_REQUESTS = 60
CHANGES = 10
LOG_LINES = 100_000
BUDGET_KB = 60
_VIEWS = (
    "/home",
    "/jobs",
    "/jobs/{job}",
    "/jobs/{job}?tab=alpha",
    "/queue",
    "/cluster",
    "/usage?unit=cpu",
    "/jobs/new",
)
_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? -1"


def main() -> None:
    """Measure and print."""
    with (
        tempfile.TemporaryDirectory() as folder,
        _filled(Path(folder) / "data") as (service, job),
        chromium() as browser,
    ):
        _views(service, browser, job)
        _list(service)
        _change(service, browser)
        _log(service, browser, job)


@contextmanager
def _filled(data_dir: Path) -> Iterator[tuple[Served, str]]:
    with served(data_dir, "--no-dispatcher") as service, httpx.Client(base_url=service.url, timeout=60) as http:
        first = http.post("/v1/jobs", json={"name": "first", "epochs": 200}).json()["id"]
        with service.database.unit_of_work() as session:
            like = session.get_one(Job, first)
            same = {column.key: getattr(like, column.key) for column in Job.__table__.columns if column.key != "id"}
            session.add_all(
                Job(
                    **{
                        **same,
                        "name": f"run-{i:05}",
                        "state": random.choice(("queued", "succeeded", "failed")),
                        "best_value": random.random(),
                    }
                )
                for i in range(NUM_JOBS)
            )
        runner = RowRunner(service.database, Settings(data_dir=data_dir))
        lease = runner.claim(first)
        runner.report(lease, *range(1, 151))
        runner.write_log(lease, "".join(f"epoch {i}: loss 0.123\n" for i in range(LOG_LINES)))
        yield service, first


def _views(service: Served, browser: Browser, job: str) -> None:
    print(f"{'view':<28}{'kB cold':>9}{'warm':>7}{'requests':>10}{'first paint ms cold':>21}{'warm':>6}")
    for view in _VIEWS:
        context = browser.new_context(base_url=service.url)
        figures: list[Mapping[str, float]] = []
        for _ in range(2):
            tab = context.new_page()
            session = context.new_cdp_session(tab)
            session.send("Network.enable")
            seen = {"bytes": 0.0, "requests": 0.0}
            session.on("Network.loadingFinished", lambda event, seen=seen: _count(seen, event))
            tab.goto(view.format(job=job))
            tab.wait_for_timeout(1500)
            figures.append({**seen, "paint": tab.evaluate(_PAINT)})
            tab.close()
        context.close()
        cold, warm = figures
        over = "  OVER" if cold["bytes"] > BUDGET_KB * 1000 else ""
        print(
            f"{view.format(job='JOB'):<28}{cold['bytes'] / 1000:>9.1f}{warm['bytes'] / 1000:>7.1f}"
            f"{cold['requests']:>10.0f}{cold['paint']:>21.0f}{warm['paint']:>6.0f}{over}"
        )


def _count(seen: dict[str, float], event: Mapping[str, float]) -> None:
    seen["bytes"] += event["encodedDataLength"]
    seen["requests"] += 1


def _list(service: Served) -> None:
    sorts = ("-created", "created", "name", "-best", "state", "-cost")
    with httpx.Client(base_url=service.url, timeout=60, headers={"Accept": "text/html"}) as http:
        bare, pages = [], []
        for i in range(LIST_REQUESTS):
            bare.append(_timed(http, "/healthz"))
            pages.append(_timed(http, f"/jobs?sort={sorts[i % len(sorts)]}&q={'run' if i % 2 else 'run-0'}"))
    p50, health = statistics.median(pages), statistics.median(bare)
    print(f"list of {NUM_JOBS:,} jobs: p50 {p50:.0f} ms, slowest of {LIST_REQUESTS} {max(pages):.0f} ms", end="; ")
    print(f"{p50 / health:.0f} times /healthz")


def _timed(http: httpx.Client, path: str) -> float:
    started_s = time.perf_counter()
    http.get(path).raise_for_status()
    return 1000 * (time.perf_counter() - started_s)


def _change(service: Served, browser: Browser) -> None:
    took = []
    with httpx.Client(base_url=service.url, timeout=60) as http:
        ids = [http.post("/v1/jobs", json={"name": "changing"}).json()["id"] for _ in range(CHANGES)]
        tab = browser.new_context(base_url=service.url).new_page()
        tab.goto("/jobs?q=changing")
        tab.locator("#light[data-state=live]").wait_for()
        for job in ids:
            http.post(f"/v1/jobs/{job}/cancel")
            started_s = time.perf_counter()
            tab.locator(f"tr[data-job='{job}'][data-state=cancelled]").wait_for()
            took.append(1000 * (time.perf_counter() - started_s))
    print(f"a changed row in the tab: median {statistics.median(took):.0f} ms, slowest of {CHANGES} {max(took):.0f} ms")


def _log(service: Served, browser: Browser, job: str) -> None:
    context = browser.new_context(base_url=service.url)
    tab = context.new_page()
    started_s = time.perf_counter()
    tab.goto(f"/jobs/{job}?tab=logs")
    tab.get_by_text(f"epoch {LOG_LINES - 1}:").wait_for()
    took_s = time.perf_counter() - started_s
    heap = context.new_cdp_session(tab).send("Runtime.getHeapUsage")["usedSize"]
    print(f"log of {LOG_LINES:,} lines: {took_s:.1f} s, heap {heap / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
