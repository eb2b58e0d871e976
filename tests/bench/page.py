"""Figures of the page, beside Optuna Dashboard's on the same 1,000 trials: `make bench-page`.

Bytes and time of each view, the list of 10,000 jobs, a change at either of two replicas, a long log, 100 tabs. Over
rows alone (SQLite, nothing trains), with a real Chromium on loopback. Times depend on the machine and on what else it
does; bytes, requests and streams do not.
"""

import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
from playwright.sync_api import Browser

from tests.bench.figures import table
from tests.support.browser import chromium
from tests.support.many_trials import study_of
from tests.support.row_runner import RowRunner
from tests.support.served import Served, free_port, served, wait_until
from xsam.services.jobs.models import Job
from xsam.services.settings import Settings
from xsam.services.studies import reading
from xsam.services.studies.optuna_file import write_optuna
from xsam.services.studies.reading import TrialFilter
from xsam.services.teams.roles import Actor

NUM_JOBS = 10_000
LIST_REQUESTS = 60
CHANGES = 10
LOG_LINES = 100_000
BUDGET_KB = 60
NUM_TRIALS = 1_000
NUM_TABS = 100
IDLE_S = 10
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
        _beside_optuna(service, browser)
        _list(service)
        _change(service, browser, service, "")
        with served(service.data_dir, "--no-dispatcher") as other:
            _change(service, browser, other, ", told to another replica")
        _log(service, browser, job)
        _tabs(service, browser)


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


def _change(service: Served, browser: Browser, told: Served, how: str) -> None:
    took = []
    context = browser.new_context(base_url=service.url)
    with httpx.Client(base_url=told.url, timeout=60) as http:
        ids = [http.post("/v1/jobs", json={"name": "changing"}).json()["id"] for _ in range(CHANGES)]
        tab = context.new_page()
        tab.goto("/jobs?q=changing")
        tab.locator("#light[data-state=live]").wait_for()
        for job in ids:
            http.post(f"/v1/jobs/{job}/cancel")
            started_s = time.perf_counter()
            tab.locator(f"tr[data-job='{job}'][data-state=cancelled]").wait_for()
            took.append(1000 * (time.perf_counter() - started_s))
    context.close()
    print(f"a changed row{how}: median {statistics.median(took):.0f} ms, slowest of {CHANGES} {max(took):.0f} ms")


def _log(service: Served, browser: Browser, job: str) -> None:
    context = browser.new_context(base_url=service.url)
    tab = context.new_page()
    started_s = time.perf_counter()
    tab.goto(f"/jobs/{job}?tab=logs")
    tab.get_by_text(f"epoch {LOG_LINES - 1}:").wait_for()
    took_s = time.perf_counter() - started_s
    heap = context.new_cdp_session(tab).send("Runtime.getHeapUsage")["usedSize"]
    context.close()
    print(f"log of {LOG_LINES:,} lines: {took_s:.1f} s, heap {heap / 2**20:.0f} MiB")


def _beside_optuna(service: Served, browser: Browser) -> None:
    """Open a study of the same trials here and in Optuna Dashboard, cold and warm, until its charts are drawn."""
    study_id = study_of(service.database, NUM_TRIALS, actor=Actor("root", "default"), has_ended=True)
    with service.database.read() as session:
        study = reading.read_study(session, study_id)
        trials = reading.all_trials(session, study_id, where=TrialFilter(), sort="number")
    file = service.data_dir / "optuna.db"
    write_optuna(file, study, trials, {})
    with _optuna_dashboard(file) as address:
        found = {
            "xsam": _opened(browser, service.url, f"/studies/{study_id}", "table.kept tbody tr"),
            "Optuna Dashboard": _opened(browser, address, "/dashboard/studies/1", ".js-plotly-plot .main-svg"),
        }
    (ours, _), (theirs, _) = found.values()
    rows = [
        [
            name,
            state,
            f"{one['bytes'] / 1000:,.0f}",
            int(one["requests"]),
            f"{one['paint']:,.0f}",
            f"{one['drawn']:,.0f}",
        ]
        for name, both in found.items()
        for state, one in zip(("cold", "warm"), both, strict=True)
    ]
    print(f"a study of {len(trials):,} trials")
    print(table(["page", "cache", "kB", "requests", "first paint ms", "charts drawn ms"], rows))
    shares = {name: ours[name] / theirs[name] for name in ("bytes", "paint", "drawn")}
    print(f"ours / theirs, cold: bytes {shares['bytes']:.2f} (target 0.20), ", end="")
    print(f"first paint {shares['paint']:.2f}, drawn {shares['drawn']:.2f} (target 0.50)")


@contextmanager
def _optuna_dashboard(file: Path) -> Iterator[str]:
    port = free_port()
    program = Path(sys.executable).with_name("optuna-dashboard")
    process = subprocess.Popen(
        [program, f"sqlite:///{file}", "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(f"{address}/api/studies"))
        httpx.get(f"{address}/api/studies/1", timeout=60)  # imports what the first answer needs
        yield address
    finally:
        process.terminate()
        process.wait()


def _answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=60).is_success
    except httpx.TransportError:
        return False


def _opened(browser: Browser, address: str, path: str, drawn: str) -> list[dict[str, float]]:
    """Open a page twice in one profile and return what each took, until a selector is there and nothing loads."""
    context = browser.new_context(base_url=address)
    figures = []
    for _ in range(2):
        tab = context.new_page()
        session = context.new_cdp_session(tab)
        session.send("Network.enable")
        seen = {"bytes": 0.0, "requests": 0.0}
        session.on("Network.loadingFinished", lambda event, seen=seen: _count(seen, event))
        started_s = time.perf_counter()
        tab.goto(path, wait_until="commit")
        tab.locator(drawn).first.wait_for(timeout=120_000)
        took_ms = 1000 * (time.perf_counter() - started_s)
        tab.wait_for_timeout(1500)
        figures.append({**seen, "paint": tab.evaluate(_PAINT), "drawn": took_ms})
        tab.close()
    context.close()
    return figures


def _tabs(service: Served, browser: Browser) -> None:
    """Hold one tab and then many open on the list, and look at what that costs the service."""
    context = browser.new_context(base_url=service.url)
    rows = []
    for num in (1, NUM_TABS):
        while len(context.pages) < num:
            tab = context.new_page()
            tab.goto("/jobs?q=run-0", wait_until="domcontentloaded")
        context.pages[-1].locator("#light[data-state=live]").wait_for(timeout=60_000)
        time.sleep(2)  # until what opening them took is over
        busy_s = _cpu_s(service)
        time.sleep(IDLE_S)
        share = (_cpu_s(service) - busy_s) / IDLE_S
        rows.append([num, _num_streams(service), f"{_memory_mib(service):.0f}", f"{100 * share:.1f}"])
    context.close()
    print(table(["tabs", "streams", "API's memory MiB", "CPU of the idle API, % of a core (target 2)"], rows))


def _num_streams(service: Served) -> int:
    text = httpx.get(f"{service.url}/metrics").text
    found = re.search(r"^xsam_\w*streams\w*(?:\{[^}]*\})? ([\d.]+)$", text, re.MULTILINE)
    return -1 if found is None else int(float(found[1]))


def _cpu_s(service: Served) -> float:
    fields = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mib(service: Served) -> float:
    pages = int(Path(f"/proc/{service.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
