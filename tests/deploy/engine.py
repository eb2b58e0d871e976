"""A container engine with compose: docker, or podman with podman-compose; and one run of the compose file on it."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_PROJECT_LABEL = "com.docker.compose.project"
_SERVICE_LABEL = "com.docker.compose.service"
_ERROR_CHARACTERS = 4000


class EngineError(RuntimeError):
    """A command of the engine failed, or there is no engine."""


@dataclass(frozen=True)
class Engine:
    """A program that runs containers, and the command that reads compose files for it."""

    program: str
    compose: tuple[str, ...]

    @property
    def version(self) -> str:
        """Return what the program calls itself."""
        return output([self.program, "--version"]).strip()

    def run(self, *words: str) -> str:
        """Return what a command printed.

        Raises:
            EngineError: it failed; with the end of what it printed.
        """
        return output([self.program, *words])

    def has(self, image: str) -> bool:
        """Return whether an image is there."""
        return _succeeds([self.program, "image", "inspect", image])

    def size_bytes(self, image: str) -> int:
        """Return how large an image is, unpacked."""
        return int(self.run("image", "inspect", "--format", "{{.Size}}", image))

    def build(self, target: str, image: str, *, base: str, options: Sequence[str]) -> str:
        """Build a target of the Dockerfile and return what was printed."""
        named = ["--target", target, "--tag", image, "--build-arg", f"BASE={base}"]
        return self.run("build", *named, *options, "--file", str(ROOT / "deploy/docker/Dockerfile"), str(ROOT))


class Stack:
    """The containers of one run of docker-compose.yml.

    Args:
        engine: runs them.
        project: apart from everything else on this machine.
        variables: a file with the operator's, instead of `.env`.
    """

    def __init__(self, engine: Engine, project: str, variables: Path) -> None:
        self.engine = engine
        self._project = project
        files = ["--file", str(ROOT / "docker-compose.yml"), "--env-file", str(variables)]
        self._compose = [*engine.compose, *files, "--project-name", project, "--profile", "tls"]

    def up(self) -> None:
        """Start all services and return at once."""
        output([*self._compose, "up", "--no-build", "--detach"])

    def container(self, service: str) -> str:
        """Return the id of a service's container."""
        return self._containers(f"label={_SERVICE_LABEL}={service}")[0]

    def pid(self, service: str) -> int:
        """Return its main process as this machine numbers it; 0 while there is none."""
        return int(self.engine.run("inspect", "--format", "{{.State.Pid}}", self.container(service)))

    def kill(self, service: str) -> int:
        """Kill its main process as a crash would, so that the engine, which was not asked, starts it again."""
        pid = self.pid(service)
        os.kill(pid, signal.SIGKILL)
        return pid

    def logs(self, service: str) -> str:
        """Return what it has printed on both streams."""
        command = [self.engine.program, "logs", self.container(service)]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout

    def inside(self, service: str, *command: str) -> str:
        """Return what a command printed in the service's container."""
        return self.engine.run("exec", self.container(service), *command)

    def remove(self) -> None:
        """Remove containers, volumes and the network.

        Raises:
            EngineError: something is left.
        """
        volumes = {name for container in self._containers() for name in self._volumes_of(container)}
        if self.engine.program == "podman":  # `down` alone fails on a container that is started again meanwhile
            self.engine.run("pod", "rm", "--force", "--ignore", f"pod_{self._project}")
        subprocess.run([*self._compose, "down", "--volumes", "--timeout", "5"], check=False, capture_output=True)
        for container in self._containers():
            self.engine.run("rm", "--force", "--volumes", container)
        kept = set(self.engine.run("volume", "ls", "--quiet").split())
        for volume in volumes & kept:
            self.engine.run("volume", "rm", "--force", volume)
        networks = set(self.engine.run("network", "ls", "--format", "{{.Name}}").split()) & {f"{self._project}_default"}
        for network in networks:
            self.engine.run("network", "rm", network)
        if self._containers():
            raise EngineError(f"containers of {self._project} are left: {', '.join(self._containers())}")

    def _containers(self, *filters: str) -> list[str]:
        wanted = [word for one in (f"label={_PROJECT_LABEL}={self._project}", *filters) for word in ("--filter", one)]
        return self.engine.run("ps", "--all", "--quiet", *wanted).split()

    def _volumes_of(self, container: str) -> list[str]:
        mounts: list[dict[str, Any]] = json.loads(self.engine.run("inspect", container))[0]["Mounts"]
        return [mount["Name"] for mount in mounts if mount.get("Type") == "volume"]


def find() -> Engine:
    """Return the engine of this machine: docker where it answers, otherwise podman.

    Raises:
        EngineError: neither is there with its compose; says what to install.
    """
    if _succeeds(["docker", "info"]) and _succeeds(["docker", "compose", "version"]):
        return Engine("docker", ("docker", "compose"))
    beside = Path(sys.executable).with_name("podman-compose")
    compose = str(beside) if beside.exists() else shutil.which("podman-compose")
    if compose is not None and _succeeds(["podman", "info"]):
        return Engine("podman", (compose,))
    raise EngineError(
        "no container engine answers on this machine: start docker with its compose plugin, or install podman "
        "(Debian: apt-get install podman runc netavark aardvark-dns iptables)"
    )


def output(command: Sequence[str], environment: Mapping[str, str] = os.environ) -> str:
    """Return what a command printed.

    Raises:
        EngineError: it failed; with the end of what it printed.
    """
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-_ERROR_CHARACTERS:].strip()
        raise EngineError(f"{shlex.join(command)} ended with {done.returncode}: {said}")
    return done.stdout


def _succeeds(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
