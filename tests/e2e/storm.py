"""`python -m tests.e2e.storm`: strikes at random at a running service, then counts what was lost.

SIGKILL and SIGSTOP of the API, the dispatcher, runners, ranks, the raylet, the cluster's control process and
PostgreSQL; a full disk and one that does not answer below the artifacts (on Linux as root: they get a file system of
their own). Jobs and studies go on all the while. In the end every one must have succeeded with each epoch once, with
the weights of an undisturbed run of the same specification, with nothing held in the cluster and no process left.
"""

import argparse
import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support.postgres_server import PostgresServer, find_programs, postgres_server
from tests.support.processes import descendants, is_alive
from tests.support.served import Served, free_port, start, stop, wait_for
from xsam.services.jobs.models import Job

PATIENCE_S = 900.0
"""After the last strike: only a hang takes so long."""
RESTART_PATIENCE_S = 120.0
ENDED = ("succeeded", "failed", "cancelled")
FILE_SYSTEM_MIB = 192
SPECS: tuple[dict[str, Any], ...] = (
    {"optimizer": {"variant": "xsam"}},
    {"optimizer": {"variant": "xsam", "ascent_steps": 2}, "resources": {"num_workers": 2}},
    {"optimizer": {"variant": "sam"}, "model": {"name": "small_cnn"}},
    {"optimizer": {"variant": "xsam", "scope": "local"}, "resources": {"num_workers": 2}},
    {"optimizer": {"variant": "sgd"}, "dataset": {"name": "digits", "augment": ["crop", "flip"]}},
    {"optimizer": {"variant": "gsam"}},
)
STUDY: dict[str, Any] = {
    "base": {"epochs": 8, "retry": {"infrastructure": 100}},
    "space": {"optimizer.rho": {"type": "log_uniform", "low": 0.02, "high": 0.3}},
    "sampler": {"name": "tpe", "startup_trials": 3},
    "early_stopping": {"name": "asha", "grace": 0.25},
    "num_trials": 6,
    "concurrency": 2,
    "control": True,
    "confirm_seeds": 2,
}


@dataclass(frozen=True)
class Options:
    """How hard it storms, and over how much."""

    seed: int
    min_strikes: int
    seconds: float
    num_jobs: int
    num_studies: int
    epochs: int


@dataclass
class Outcome:
    """What is left of it."""

    strikes: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    """Strikes that found nothing to hit."""
    states: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    wrong: list[str] = field(default_factory=list)
    """One sentence for each thing that must not be; empty when all is well."""


class Storm:
    """A service under fire, and the operator who starts again what an init system would."""

    def __init__(self, options: Options, folder: Path, postgres: PostgresServer) -> None:
        self._options = options
        self._rng = random.Random(options.seed)
        self._postgres = postgres
        self._data_dir = folder / "data"
        self._artifacts = self._data_dir / "artifacts"
        self._port = free_port()
        self._frozen: list[tuple[float, int]] = []
        self._seen: dict[int, str] = {}
        self._is_disk_ours = False
        self.outcome = Outcome()
        self._service: Served

    def run(self) -> Outcome:
        """Submit, strike, wait for the end, and look."""
        with self._own_disk():
            self._service = self._start()
            try:
                self._wait_ready()
                jobs = {self._submit(n): n % len(SPECS) for n in range(self._options.num_jobs)}
                studies = [
                    self._post("/v1/studies", STUDY | {"name": f"{n}"}) for n in range(self._options.num_studies)
                ]
                self._strike_on(jobs)
                self._wait_ended([*jobs, *studies])
                self._check_jobs(jobs)
                for study in studies:
                    self._check_study(study)
                self._check_nothing_held()
            finally:
                self._thaw(float("inf"))
                self._remember()
                stop(self._service.process)
                self._service.database.dispose()
            self._check_no_process_left()
        return self.outcome

    # The operator.

    def _start(self) -> Served:
        return start(self._data_dir, "--num-cpus", "2", port=self._port, database_url=self._postgres.url)

    def _wait_ready(self) -> None:
        wait_for(self._service, "/readyz")

    def _restart(self) -> None:
        """Start a killed API again, once what it had started is gone; as an init system would."""
        self._service.process.wait()
        self._service.database.dispose()
        _wait(lambda: not self._alive(), RESTART_PATIENCE_S, "the processes of a killed API live on")
        self._service = self._start()
        self._wait_ready()

    @contextlib.contextmanager
    def _own_disk(self) -> Iterator[None]:
        """Give the artifacts a file system of their own, which may be filled and frozen."""
        image = self._data_dir.with_suffix(".img")
        self._artifacts.mkdir(parents=True)
        if os.geteuid() == 0:
            with image.open("wb") as file:
                file.truncate(FILE_SYSTEM_MIB << 20)
            made = subprocess.run(["mkfs.ext4", "-q", str(image)], check=False).returncode == 0
            mount = ["mount", "-o", "loop", str(image), str(self._artifacts)]
            self._is_disk_ours = made and subprocess.run(mount, check=False).returncode == 0
        try:
            yield
        finally:
            if self._is_disk_ours:
                subprocess.run(["umount", "--lazy", str(self._artifacts)], check=True)

    # The strikes.

    def _strike_on(self, jobs: dict[str, int]) -> None:
        kinds = self._kinds()
        names, weights = list(kinds), [weight for _, weight in kinds.values()]
        began = time.monotonic()
        pause_s = self._options.seconds / max(1, self._options.min_strikes) * 0.8
        while time.monotonic() - began < self._options.seconds or self._count() < self._options.min_strikes:
            (name,) = self._rng.choices(names, weights)
            self._remember()
            hit = kinds[name][0]()
            (self.outcome.strikes if hit else self.outcome.missed)[name] += 1
            self._thaw(time.monotonic())
            if not self._unfinished():
                jobs[self._submit(len(jobs))] = len(jobs) % len(SPECS)
            self._report()
            time.sleep(self._rng.uniform(0.2, 2.0) * pause_s)
        self._thaw(float("inf"))

    def _kinds(self) -> dict[str, tuple[Callable[[], bool], float]]:
        found: dict[str, tuple[Callable[[], bool], float]] = {
            "kill rank": (lambda: self._signal_titled("RankWorker", signal.SIGKILL), 10),
            "kill runner": (lambda: self._signal_titled("JobRunner", signal.SIGKILL), 7),
            "kill study runner": (lambda: self._signal_titled("StudyRunner", signal.SIGKILL), 3),
            "kill dispatcher": (lambda: self._signal_titled("xsam.workers", signal.SIGKILL), 1),
            "kill raylet": (lambda: self._signal_titled("raylet/raylet", signal.SIGKILL), 0.7),
            "kill cluster control": (lambda: self._signal_titled("gcs_server", signal.SIGKILL), 0.7),
            "kill API": (self._kill_api, 0.7),
            "kill PostgreSQL": (self._kill_postgres, 2),
            "stop rank": (lambda: self._signal_titled("RankWorker", signal.SIGSTOP), 4),
            "stop runner": (lambda: self._signal_titled("JobRunner", signal.SIGSTOP), 4),
            "stop dispatcher": (lambda: self._signal_titled("xsam.workers", signal.SIGSTOP), 1),
            "stop API": (self._stop_api, 1),
        }
        if self._is_disk_ours:
            found |= {"full disk": (self._fill_disk, 2), "disk that waits": (self._freeze_disk, 2)}
        return found

    def _count(self) -> int:
        return self.outcome.strikes.total()

    def _signal_titled(self, title: str, number: signal.Signals) -> bool:
        """Signal one process below the API with this in its command line."""
        found = [pid for pid, text in descendants(self._service.process.pid).items() if title in text]
        if not found:
            return False
        return self._signal(self._rng.choice(sorted(found)), number)

    def _signal(self, pid: int, number: signal.Signals) -> bool:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False  # it was faster
        if number == signal.SIGSTOP:
            self._frozen.append((time.monotonic() + self._rng.uniform(0.5, 25.0), pid))
        return True

    def _stop_api(self) -> bool:
        return self._signal(self._service.process.pid, signal.SIGSTOP)

    def _kill_api(self) -> bool:
        self._thaw(float("inf"))
        self._service.process.kill()
        self._restart()
        return True

    def _kill_postgres(self) -> bool:
        self._postgres.stop()
        time.sleep(self._rng.uniform(0.2, 3.0))
        self._postgres.start()
        return True

    def _fill_disk(self) -> bool:
        filler = self._artifacts / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
        time.sleep(self._rng.uniform(0.5, 4.0))
        filler.unlink()
        return True

    def _freeze_disk(self) -> bool:
        subprocess.run(["fsfreeze", "--freeze", str(self._artifacts)], check=True)
        try:
            time.sleep(self._rng.uniform(0.5, 6.0))
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", str(self._artifacts)], check=True)
        return True

    def _thaw(self, now: float) -> None:
        """Let stopped processes go on whose time has come."""
        for when, pid in list(self._frozen):
            if when <= now:
                self._frozen.remove((when, pid))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _remember(self) -> None:
        self._seen |= descendants(self._service.process.pid)

    def _alive(self) -> dict[int, str]:
        """Return the processes that once were below the API and still live."""
        return {pid: title for pid, title in self._seen.items() if is_alive(pid) and _title(pid) == title}

    def _report(self) -> None:
        hits, missed = self.outcome.strikes, self.outcome.missed.total()
        line = f"\r{hits.total()} strikes, {missed} found nothing; last: {next(reversed(hits), '-')}   "
        sys.stderr.write(line)
        sys.stderr.flush()

    # The service, over REST, whatever stands still at the moment.

    def _get(self, path: str) -> dict[str, Any]:
        return self._ask("GET", path)

    def _post(self, path: str, body: dict[str, Any]) -> str:
        return str(self._ask("POST", path, json=body, headers={"Idempotency-Key": self._key()})["id"])

    def _key(self) -> str:
        return f"{self._rng.getrandbits(64):016x}"

    def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        deadline = time.monotonic() + RESTART_PATIENCE_S
        while True:
            try:
                answer = httpx.request(method, self._service.url + path, timeout=5, **options)
                if answer.status_code < 500:
                    return dict(answer.raise_for_status().json())
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline:
                raise TimeoutError(f"{method} {path} was not answered")
            self._thaw(time.monotonic())
            time.sleep(0.3)

    def _submit(self, number: int, **changes: Any) -> str:
        spec = {"epochs": self._options.epochs, "seed": 1, "checkpoint": {"every_epochs": 2}, **_SURVIVES}
        return self._post("/v1/jobs", {**spec, **SPECS[number % len(SPECS)], **changes})

    def _unfinished(self) -> bool:
        return any(self._get(f"/v1/jobs?state={state}&limit=1")["items"] for state in ("queued", "running"))

    def _wait_ended(self, job_ids: list[str]) -> None:
        waiting = list(job_ids)

        def all_ended() -> bool:
            waiting[:] = [one for one in waiting if self._state(one) not in ENDED]
            return not waiting

        _wait(all_ended, PATIENCE_S, f"still not ended: {waiting}")

    def _state(self, job_id: str) -> str:
        with self._service.database.read() as session:
            return str(session.get_one(Job, job_id).state)

    # What must be so in the end.

    def _check_jobs(self, jobs: dict[str, int]) -> None:
        undisturbed: dict[int, str] = {}
        for number in sorted(set(jobs.values())):
            job_id = self._submit(number)
            self._wait_ended([job_id])
            undisturbed[number] = self._weights(job_id)
        for job_id, number in jobs.items():
            job = self._get(f"/v1/jobs/{job_id}")
            self.outcome.states[job["state"]] += 1
            self.outcome.attempts += job["attempt"]
            if job["state"] != "succeeded":
                self._wrong(f"job {job_id} is {job['state']}: {job['failure']}")
                continue
            self._check_epochs(job_id, self._options.epochs)
            if self._weights(job_id) != undisturbed[number]:
                self._wrong(f"job {job_id} ({job['attempt']} attempts) has other weights than an undisturbed run")

    def _check_epochs(self, job_id: str, num_epochs: int) -> None:
        epochs = [row["epoch"] for row in self._get(f"/v1/jobs/{job_id}/metrics")["items"]]
        if epochs != list(range(1, num_epochs + 1)):
            self._wrong(f"job {job_id} has the epochs {epochs}")

    def _weights(self, job_id: str) -> str:
        answer = httpx.get(f"{self._service.url}/v1/jobs/{job_id}/artifacts/weights/last.safetensors")
        return hashlib.sha256(answer.raise_for_status().content).hexdigest()

    def _check_study(self, study_id: str) -> None:
        study = self._get(f"/v1/studies/{study_id}")
        trials = self._get(f"/v1/studies/{study_id}/trials?limit=200")["items"]
        self.outcome.states[f"study {study['state']}"] += 1
        self.outcome.attempts += sum(self._get(f"/v1/jobs/{trial['id']}")["attempt"] for trial in trials)
        if study["state"] != "succeeded" or {trial["state"] for trial in trials} != {"succeeded"}:
            states = Counter(trial["state"] for trial in trials)
            self._wrong(f"study {study_id} is {study['state']}, its trials {dict(states)}")
        keys = [(trial["arm"], trial["phase"], trial["config"], trial["seed"]) for trial in trials]
        if len(keys) != len(set(keys)):
            self._wrong(f"study {study_id} ran a trial twice")
        for trial in trials:
            self._check_epochs(trial["id"], trial["epochs_done"])

    def _check_nothing_held(self) -> None:
        """A job that needs the whole cluster starts at once only where nothing is left reserved."""
        job_id = self._submit(1)
        self._wait_ended([job_id])
        if (attempt := self._get(f"/v1/jobs/{job_id}")["attempt"]) != 1:
            self._wrong(f"a job on the whole cluster needed {attempt} attempts after the storm")

    def _check_no_process_left(self) -> None:
        for pid, title in self._alive().items():
            self._wrong(f"process {pid} is left: {title[:80]}")

    def _wrong(self, sentence: str) -> None:
        self.outcome.wrong.append(sentence)


_SURVIVES = {"retry": {"infrastructure": 100, "first_delay_s": 0.1, "max_delay_s": 1.0}}


def storm(options: Options) -> Outcome:
    """Raise one storm over a PostgreSQL server and a service of its own.

    Raises:
        RuntimeError: PostgreSQL's programs are not installed.
    """
    programs = find_programs()
    if programs is None:
        raise RuntimeError("PostgreSQL's programs (initdb, pg_ctl) are not installed on this machine")
    with tempfile.TemporaryDirectory() as folder, postgres_server(programs, Path(folder) / "postgres") as postgres:
        return Storm(options, Path(folder), postgres).run()


def _wait(condition: Callable[[], bool], patience_s: float, sentence: str) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(sentence)
        time.sleep(0.3)


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""


def main() -> None:
    """Print what struck and what was lost; exit with 1 if anything was."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--strikes", type=int, default=200, help="at least so many (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=10.0, help="at least so long (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=36)
    parser.add_argument("--studies", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30, help="of each job (default: %(default)s)")
    given = parser.parse_args()
    options = Options(given.seed, given.strikes, given.minutes * 60, given.jobs, given.studies, given.epochs)
    print(f"seed {options.seed}", flush=True)
    outcome = storm(options)
    print()
    for name, count in sorted(outcome.strikes.items()):
        print(f"{count:5d}  {name}")
    print(f"{outcome.strikes.total():5d}  strikes; {outcome.missed.total()} more found nothing to hit")
    print(f"{outcome.attempts} attempts; ended: {dict(outcome.states)}")
    print(*(outcome.wrong or ["nothing lost, nothing twice, nothing held, nothing left"]), sep="\n")
    sys.exit(bool(outcome.wrong))


if __name__ == "__main__":
    main()
