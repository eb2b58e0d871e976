"""Three users of two teams share eight logical GPUs, from the command line; `python -m tests.e2e.two_teams` prints it.

The GPUs are logical: the scheduler counts them, and the training runs on the CPU where there is no CUDA device.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from typer.testing import CliRunner

from tests.support.processes import stopped
from tests.support.served import Served, served
from xsam.api.cli import show
from xsam.api.cli.main import app
from xsam.api.client import Client
from xsam.services.jobs.states import JobState
from xsam.services.reports.why import NOT_LOOKED_AT

NUM_GPUS = 8
OPTIONS = ("--auth", "token", "--num-gpus", str(NUM_GPUS), "--num-cpus", str(NUM_GPUS))
VARIABLES = {"XSAM_TRAINING__DEVICE": "cpu", "XSAM_DISPATCHER__WARM_PROCESSES": "1"}
"""The GPUs are logical, and so are most of the CPUs."""
PATIENCE_S = 240.0
WIDTH = 120
USERS = {"ann": "vision", "bob": "vision", "cat": "speech"}
_LONG, _SHORT = 100_000, 2
"""Epochs of a job that somebody cancels, and of one that ends by itself."""
_WAITING = {"bob-big": "bob", "cat-small": "cat", "bob-urgent": "bob"}


@dataclass
class Story:
    """What happened: the commands with their output, and the jobs by the names that the story gives them.

    Args:
        service: runs with tokens.
        admin_token: of an admin of the service.
    """

    service: Served
    admin_token: str
    tokens: dict[str, str] = field(default_factory=dict)
    jobs: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def xsam(self, user: str, *words: str, stdin: str | None = None, is_shown: bool = True) -> str:
        """Run a command as a user and return what it printed, its errors included."""
        token = self.admin_token if user == "root" else self.tokens[user]
        environment = {"XSAM_URL": self.service.url, "XSAM_TOKEN": token}
        printed = CliRunner().invoke(app, words, input=stdin, env=environment).output
        if is_shown:
            self.lines.append(f"{user}$ xsam {' '.join(_quoted(word) for word in words)}")
            self.lines += [line.rstrip() for line in printed.splitlines()]
        return printed

    def hire(self, user: str, team: str, role: str = "member") -> None:
        """Take a user into a team and hand them a token."""
        self.xsam("root", "team", "add", team, user, "--role", role)
        made = self.xsam("root", "token", "create", "--user", user, "--team", team, is_shown=False)
        self.tokens[user] = made.splitlines()[0]

    def submit(self, user: str, name: str, *, gpus: int, epochs: int, priority: int = 0) -> str:
        """Submit a job as a user and return what the command printed."""
        words = ["submit", "job.yaml", "--set", f"name={name}", "--set", f"resources.gpus_per_worker={gpus}"]
        words += ["--set", f"epochs={epochs}"] + (["--set", f"priority={priority}"] if priority else [])
        shown = list(words)
        words[1] = "-"
        printed = self.xsam(user, *words, stdin="model: {name: small_cnn}\n", is_shown=False)
        self.lines += [f"{user}$ xsam {' '.join(shown)}", printed.splitlines()[0]]
        if printed.startswith("Job "):
            self.jobs[name] = printed.split()[1]
        return printed

    def why(self, user: str, name: str) -> str:
        """Wait until a reason has been published, and return what the command prints."""
        deadline = time.monotonic() + PATIENCE_S
        with Client(self.service.url, token=self.admin_token) as client:
            while client.why(self.jobs[name]).code == NOT_LOOKED_AT:
                assert time.monotonic() < deadline, f"nobody said why {name} waits"
                time.sleep(0.3)
        return self.xsam(user, "why", self.jobs[name])

    def state(self, name: str) -> JobState:
        """Return a job's state."""
        with Client(self.service.url, token=self.admin_token) as client:
            return client.get(self.jobs[name]).state

    def states(self) -> dict[str, JobState]:
        """Return the states of all jobs."""
        return {name: self.state(name) for name in self.jobs}

    def wait(self, **wanted: JobState) -> None:
        """Wait until jobs are in these states."""
        deadline = time.monotonic() + PATIENCE_S
        names = {name.replace("_", "-"): state for name, state in wanted.items()}
        while any(self.state(name) != state for name, state in names.items()):
            assert time.monotonic() < deadline, f"wanted {names}, got {self.states()}"
            time.sleep(0.3)

    @contextmanager
    def at_rest(self, *names: str) -> Iterator[None]:
        """Let these running jobs' ranks stand still: training would take the processors from who is looked at."""
        with stopped([self._rank_pid(name) for name in names]):
            yield

    def _rank_pid(self, name: str) -> int:
        deadline = time.monotonic() + PATIENCE_S
        with Client(self.service.url, token=self.admin_token) as client:
            while True:
                pids = [one.data["rank_pid"] for one in client.events(self.jobs[name]) if one.kind == "training"]
                if pids:
                    return int(pids[0])
                assert time.monotonic() < deadline, f"{name} does not train: {self.states()}"
                time.sleep(0.3)

    def say(self, text: str) -> None:
        """Add a remark to the transcript."""
        self.lines += ["", f"# {text}"]


def found_teams(story: Story) -> None:
    """Create the teams, hire the users."""
    story.say("The admin founds two teams: vision may hold 6 GPUs, speech 4, and vision's share is twice speech's.")
    story.xsam("root", "team", "create", "vision", "--gpus", "6", "--weight", "2")
    story.xsam("root", "team", "create", "speech", "--gpus", "4")
    for user, team in USERS.items():
        story.hire(user, team)
    story.xsam("root", "team", "list")


def fill_cluster(story: Story) -> None:
    """Take all GPUs."""
    story.say("Ann and Cat take four GPUs each; the cluster is full.")
    story.submit("ann", "ann-big", gpus=4, epochs=_LONG)
    story.submit("cat", "cat-big", gpus=4, epochs=_LONG)
    story.wait(ann_big=JobState.RUNNING, cat_big=JobState.RUNNING)


def wait_for_room(story: Story) -> Mapping[str, str]:
    """Let more jobs wait, each for a reason of its own; returns the reasons by job."""
    story.say("Bob's job would bring vision to 8 of its 6 GPUs, Cat's second one speech to 6 of its 4: both wait.")
    story.submit("bob", "bob-big", gpus=4, epochs=_SHORT)
    story.submit("cat", "cat-small", gpus=2, epochs=_SHORT)
    story.say("Bob's urgent one is within the quota, but there is no GPU left; it waits at the head of the line.")
    story.submit("bob", "bob-urgent", gpus=2, epochs=_SHORT, priority=50)
    story.say("Each of them can ask why.")
    reasons = {name: story.why(user, name) for name, user in _WAITING.items()}
    story.xsam("bob", "queue")
    return reasons


def stay_apart(story: Story) -> Mapping[str, str]:
    """Try what is not allowed; returns what the commands printed."""
    story.say("Nobody asks for more than their team may ever hold, sees or cancels the other team's jobs.")
    return {
        "too much": story.submit("cat", "cat-huge", gpus=8, epochs=_SHORT),
        "foreign cancel": story.xsam("cat", "cancel", story.jobs["ann-big"]),
        "foreign list": story.xsam("cat", "list", "--team", "vision"),
        "own quota": story.xsam("cat", "team", "set", "speech", "--gpus", "8"),
        "cat's list": story.xsam("cat", "list"),
    }


def free_gpus(story: Story) -> None:
    """Cancel the long jobs one after the other; the waiting ones start as room comes."""
    story.say("Ann stops her job. Of the waiting ones the urgent starts; the other two still lack GPUs or quota.")
    story.xsam("ann", "cancel", story.jobs["ann-big"])
    with story.at_rest("cat-big"):
        story.wait(ann_big=JobState.CANCELLED, bob_urgent=JobState.SUCCEEDED, bob_big=JobState.SUCCEEDED)
    story.say("With Ann's GPUs back, Bob's jobs have run. Cat's second job waits for its own team's quota still.")
    story.xsam("cat", "list")


def finish(story: Story) -> None:
    """Give the last quota back and look at what was done."""
    story.say("Cat stops the first; the second starts.")
    story.xsam("cat", "cancel", story.jobs["cat-big"])
    story.wait(cat_big=JobState.CANCELLED, cat_small=JobState.SUCCEEDED)
    story.xsam("root", "list")
    story.xsam("root", "audit", "--limit", "4")


def first_admin_token(service: Served) -> str:
    """Return a token of an admin, made beside the service."""
    command = [
        sys.executable,
        "-m",
        "xsam.api",
        "token",
        "recover",
        "--user",
        "root",
        "--data-dir",
        str(service.data_dir),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """Print the transcript."""
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder), *OPTIONS, is_warmed=False, environment={**os.environ, **VARIABLES}) as service,
    ):
        show.out.width = show.err.width = WIDTH
        story = Story(service, first_admin_token(service))
        found_teams(story)
        fill_cluster(story)
        with story.at_rest("ann-big", "cat-big"):
            wait_for_room(story)
            stay_apart(story)
        free_gpus(story)
        finish(story)
        print("\n".join(story.lines).strip())


def _quoted(word: str) -> str:
    return f"'{word}'" if " " in word else word


if __name__ == "__main__":
    main()
