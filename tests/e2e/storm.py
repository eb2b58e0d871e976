"""`python -m tests.e2e.storm`: strikes at random at a running service, then counts what was lost.

SIGKILL and SIGSTOP of the API, the dispatcher, runners, ranks, the raylet, the cluster's control process and
PostgreSQL; a full disk and one that does not answer below the artifacts. Jobs and studies go on all the while. In the
end every one must have succeeded with each epoch once, with the weights of an undisturbed run of the same
specification, with nothing held in the cluster and no process left.
"""

import argparse
import hashlib
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.strikes import ArtifactDisk, Strikes
from tests.support.ports import free_port
from tests.support.postgres_server import PostgresServer, find_programs, postgres_server
from tests.support.processes import descendants, is_alive
from tests.support.served import Served, start, stop, wait_for

PATIENCE_S = 600.0
"""Without an epoch or an end anywhere after the last strike: only a hang takes so long."""
RESTART_PATIENCE_S = 180.0
TRIES = 3
"""Of a kind of strike that finds nobody to hit, since processes come and go."""
ENDED = ("succeeded", "failed", "cancelled")
_PROGRESS = ("state", "progress", "num_by_state", "spent")
"""What moves in answers about jobs and studies when work is done; a new attempt alone is none."""
OPTIONS = ("--num-cpus", "2", "--num-gpus", "2")
VARIABLES = {"XSAM_TRAINING__DEVICE": "cpu", "RAY_worker_niceness": "0"}
"""The GPUs are logical, and ranks wait for no other work of the machine."""
_SURVIVES = {"retry": {"infrastructure": 100, "first_delay_s": 0.1, "max_delay_s": 1.0}}
SPECS: tuple[dict[str, Any], ...] = (
    {"optimizer": {"variant": "xsam"}},
    {"optimizer": {"variant": "xsam", "ascent_steps": 2}, "resources": {"num_workers": 2}},
    {"optimizer": {"variant": "sam"}, "model": {"name": "small_cnn"}},
    {"optimizer": {"variant": "xsam"}, "resources": {"num_workers": 2, "gpus_per_worker": 1}},
    {"optimizer": {"variant": "sgd"}, "dataset": {"name": "digits", "augment": ["crop", "flip"]}},
    {"optimizer": {"variant": "xsam", "scope": "local"}, "resources": {"num_workers": 2}},
    {"optimizer": {"variant": "gsam"}, "resources": {"gpus_per_worker": 0.5}},
)
STUDY: dict[str, Any] = {
    "base": {"epochs": 6, **_SURVIVES},
    "space": {"optimizer.rho": {"type": "log_uniform", "low": 0.02, "high": 0.3}},
    "sampler": {"name": "tpe", "startup_trials": 2},
    "early_stopping": {"name": "asha", "grace": 0.25},
    "num_trials": 5,
    "concurrency": 2,
    "confirm_seeds": 2,
    **_SURVIVES,
}


@dataclass(frozen=True)
class Options:
    """How hard it storms, and over how much."""

    seed: int
    min_strikes: int
    """At least so many; each kind comes at least once in any case."""
    seconds: float
    num_jobs: int
    num_studies: int
    epochs: int
    pause_s: float
    """Between two strikes, on average."""
    spared: Collection[str] = ()
    """Kinds of strike that never come."""


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
        self._disk = ArtifactDisk(self._data_dir / "artifacts")
        self._port = free_port()
        self._seen: dict[int, tuple[str, str]] = {}
        """When each process below the API began, and what it was called last."""
        self._finished: dict[str, dict[str, Any]] = {}
        """Trials that had succeeded while it stormed, as they were."""
        self.outcome = Outcome()
        self._service: Served
        self._strikes = Strikes(
            random.Random(self._rng.random()),
            api_pid=lambda: self._service.process.pid,
            postgres=postgres,
            disk=self._disk,
            restart=self._restart,
            spared=options.spared,
        )

    def run(self) -> Outcome:
        """Submit, strike, wait for the end, and look."""
        with self._disk.mounted():
            self._service = self._start()
            try:
                wait_for(self._service, "/readyz")
                jobs = {self._submit(n): n % len(SPECS) for n in range(self._options.num_jobs)}
                studies = [self._post("/v1/studies", STUDY) for _ in range(self._options.num_studies)]
                self._strike_on(jobs, studies)
                self._wait_ended([f"jobs/{one}" for one in jobs] + [f"studies/{one}" for one in studies])
                self._check_jobs(jobs)
                for study in studies:
                    self._check_study(study)
                self._check_nothing_held()
            finally:
                self._strikes.let_go_on(float("inf"))
                self._remember()
                stop(self._service.process)
                self._service.database.dispose()
            self._check_no_process_left()
        return self.outcome

    # The operator.

    def _start(self) -> Served:
        environment = os.environ | VARIABLES
        url = self._postgres.url
        return start(self._data_dir, *OPTIONS, port=self._port, database_url=url, environment=environment)

    def _restart(self, is_killed: bool) -> None:
        """Start the API again, once what it had started is gone; as an init system would."""
        self._strikes.let_go_on(float("inf"))
        if is_killed:
            self._service.process.kill()
            self._service.process.wait()
        else:
            stop(self._service.process)
        self._service.database.dispose()
        _wait(lambda: not self._alive(), RESTART_PATIENCE_S, lambda: f"they live on without an API: {self._alive()}")
        self._service = self._start()
        wait_for(self._service, "/readyz")

    # The strikes.

    def _strike_on(self, jobs: dict[str, int], studies: Sequence[str]) -> None:
        options, began = self._options, time.monotonic()
        self._strikes.begin_with_each()
        while (
            self._strikes.has_rest
            or self.outcome.strikes.total() < options.min_strikes
            or time.monotonic() - began < options.seconds
        ):
            name = self._strikes.draw()
            self._remember()
            hit = self._strikes.strike(name)
            (self.outcome.strikes if hit else self.outcome.missed)[name] += 1
            if not self.outcome.strikes[name] and self.outcome.missed[name] < TRIES:
                self._strikes.try_again(name)
            self._report(name)
            time.sleep(self._rng.uniform(0.2, 1.8) * options.pause_s)
            self._strikes.let_go_on(time.monotonic())
            if not self._strikes.has_stopped:
                self._note_finished(studies)
                if not self._is_busy():
                    jobs[self._submit(len(jobs))] = len(jobs) % len(SPECS)
        self._strikes.let_go_on(float("inf"))

    def _note_finished(self, studies: Sequence[str]) -> None:
        for study_id in studies:
            for trial in self._trials(study_id):
                if trial["state"] == "succeeded":
                    self._finished.setdefault(trial["id"], trial)

    def _remember(self) -> None:
        below = descendants(self._service.process.pid)
        self._seen |= {pid: (began, title) for pid, title in below.items() if (began := _began(pid))}

    def _alive(self) -> dict[int, str]:
        """Return the processes that once were below the API and still live."""
        seen = self._seen.items()
        return {pid: title for pid, (began, title) in seen if is_alive(pid) and _began(pid) == began}

    def _report(self, last: str) -> None:
        hits, missed = self.outcome.strikes.total(), self.outcome.missed.total()
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {hits} strikes, {missed} found nothing; last: {last}\n")

    # The service, over REST, whatever stands still at the moment.

    def _get(self, path: str) -> dict[str, Any]:
        return self._ask("GET", path)

    def _post(self, path: str, body: dict[str, Any]) -> str:
        key = {"Idempotency-Key": f"{self._rng.getrandbits(64):016x}"}
        return str(self._ask("POST", path, json=body, headers=key)["id"])

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
            self._strikes.let_go_on(time.monotonic())
            time.sleep(0.3)

    def _submit(self, number: int) -> str:
        spec = {"epochs": self._options.epochs, "seed": 1, "checkpoint": {"every_epochs": 2}, **_SURVIVES}
        return self._post("/v1/jobs", {**spec, **SPECS[number % len(SPECS)]})

    def _is_busy(self) -> bool:
        return any(self._get(f"/v1/jobs?state={state}&limit=1")["items"] for state in ("queued", "running"))

    def _wait_ended(self, paths: Sequence[str]) -> None:
        waiting, since = set(paths), time.monotonic()
        seen: dict[str, list[Any]] = {}
        while waiting:
            answers = {path: self._get(f"/v1/{path}") for path in sorted(waiting)}
            waiting -= {path for path, answer in answers.items() if answer["state"] in ENDED}
            progress = {path: [answer.get(name) for name in _PROGRESS] for path, answer in answers.items()}
            if progress != seen:
                seen, since = progress, time.monotonic()
            if time.monotonic() - since > PATIENCE_S:
                raise TimeoutError(f"nothing moves any more: {list(answers.values())}")
            time.sleep(0.5)

    # What must be so in the end.

    def _check_jobs(self, jobs: dict[str, int]) -> None:
        undisturbed = {number: self._submit(number) for number in sorted(set(jobs.values()))}
        self._wait_ended([f"jobs/{one}" for one in undisturbed.values()])
        expected = {number: self._weights(job_id) for number, job_id in undisturbed.items()}
        for job_id, number in jobs.items():
            job = self._get(f"/v1/jobs/{job_id}")
            self.outcome.states[job["state"]] += 1
            self.outcome.attempts += job["attempt"]
            if job["state"] != "succeeded":
                self._wrong(f"job {job_id} {SPECS[number]} is {job['state']}: {job['failure']}")
                continue
            self._check_epochs(job_id, self._options.epochs)
            if self._weights(job_id) != expected[number]:
                self._wrong(f"job {job_id} ({job['attempt']} attempts) has other weights than an undisturbed run")

    def _check_epochs(self, job_id: str, num_epochs: int) -> None:
        epochs = [row["epoch"] for row in self._get(f"/v1/jobs/{job_id}/metrics")["items"]]
        if epochs != list(range(1, num_epochs + 1)):
            self._wrong(f"job {job_id} has the epochs {epochs}")

    def _weights(self, job_id: str) -> str:
        answer = httpx.get(f"{self._service.url}/v1/jobs/{job_id}/artifacts/weights/last.safetensors", timeout=60)
        return hashlib.sha256(answer.raise_for_status().content).hexdigest()

    def _trials(self, study_id: str) -> list[dict[str, Any]]:
        return list(self._get(f"/v1/studies/{study_id}/trials?limit=200")["items"])

    def _check_study(self, study_id: str) -> None:
        study = self._get(f"/v1/studies/{study_id}")
        trials = self._trials(study_id)
        self.outcome.states[f"study {study['state']}"] += 1
        self.outcome.attempts += sum(self._get(f"/v1/jobs/{trial['id']}")["attempt"] for trial in trials)
        if study["state"] != "succeeded" or {trial["state"] for trial in trials} != {"succeeded"}:
            states = Counter(trial["state"] for trial in trials)
            self._wrong(f"study {study_id} is {study['state']}, its trials {dict(states)}")
        keys = [(trial["arm"], trial["phase"], trial["config"], trial["seed"]) for trial in trials]
        if len(keys) != len(set(keys)) or len(keys) != STUDY["num_trials"] + STUDY["confirm_seeds"]:
            self._wrong(f"study {study_id} has the trials {keys}")
        for trial in trials:
            self._check_epochs(trial["id"], trial["epochs_done"])
            if self._finished.get(trial["id"], trial) != trial:
                self._wrong(f"trial {trial['id']} was {self._finished[trial['id']]}, and is now {trial}")

    def _check_nothing_held(self) -> None:
        """Ray and the rows agree that nothing is in use, and a job on the whole cluster starts at once."""
        try:
            _wait(lambda: not self._held(), 60, lambda: str(self._held()))
        except TimeoutError as e:
            self._wrong(f"after the storm the cluster still holds {e}")
        job_id = self._submit(1)
        self._wait_ended([f"jobs/{job_id}"])
        if (attempt := self._get(f"/v1/jobs/{job_id}")["attempt"]) != 1:
            self._wrong(f"a job on the whole cluster needed {attempt} attempts after the storm")

    def _held(self) -> list[Any]:
        nodes = [node for node in self._get("/v1/cluster")["nodes"] if node["is_alive"]]
        return [node for node in nodes if node["used_cpus"] or node["jobs"] or node["foreign"] or node["set_aside"]]

    def _check_no_process_left(self) -> None:
        try:
            _wait(lambda: not self._alive(), RESTART_PATIENCE_S, lambda: str(self._alive()))
        except TimeoutError as e:
            self._wrong(f"processes are left: {e}")

    def _wrong(self, sentence: str) -> None:
        self.outcome.wrong.append(sentence)


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


def _wait(condition: Callable[[], bool], patience_s: float, sentence: Callable[[], str]) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(sentence())
        time.sleep(0.5)


def _began(pid: int) -> str:
    """Return a process's start time in the kernel's clock, which tells it from a later one of the same id."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
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
    parser.add_argument("--epochs", type=int, default=20, help="of each job (default: %(default)s)")
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between strikes (default: %(default)s)")
    given = parser.parse_args()
    options = Options(
        given.seed, given.strikes, given.minutes * 60, given.jobs, given.studies, given.epochs, given.pause
    )
    print(f"seed {options.seed}", flush=True)
    outcome = storm(options)
    for name, count in sorted(outcome.strikes.items()):
        print(f"{count:5d}  {name}")
    print(f"{outcome.strikes.total():5d}  strikes; {outcome.missed.total()} more found nothing to hit")
    print(f"{outcome.attempts} attempts; ended: {dict(outcome.states)}")
    print(*(outcome.wrong or ["nothing lost, nothing twice, nothing held, nothing left"]), sep="\n")
    sys.exit(bool(outcome.wrong))


if __name__ == "__main__":
    main()
