"""`make deploy-test`: build the images, run docker-compose.yml, train in it, kill every container, remove all of it.

Prints what it took. Where no registry of images can be reached, deploy/docker/debian.sh makes the bases: that is
`--images debian`, what podman gets unless told otherwise. What `build` needs on this machine, an index or a folder of
wheels, goes into XSAM_DEPLOY_BUILD_OPTIONS: "--build-arg PIP_INDEX_URL=...".
"""

import argparse
import contextlib
import json
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.deploy.engine import ROOT, Engine, EngineError, Stack, find, output
from tests.deploy.team import Team
from tests.support.ports import free_port

PROJECT = "xsam-deploy-test"
DEBIAN = {
    "BASE": ("python", "localhost/xsam-python:3.11"),
    "POSTGRES_IMAGE": ("postgres", "localhost/xsam-postgres:15"),
    "PROXY_IMAGE": ("caddy", "localhost/xsam-caddy:2"),
}
"""Which images debian.sh makes, by what they are for, with its word for each."""
REGISTRY = {"BASE": "python:3.11-slim", "POSTGRES_IMAGE": "postgres:16", "PROXY_IMAGE": "caddy:2"}
OURS = {"XSAM_API_IMAGE": ("api", "localhost/xsam-api"), "XSAM_WORKER_IMAGE": ("worker", "localhost/xsam-worker")}
BILL = "/usr/share/sbom/bill.cdx.json"
SERVICES = ("postgres", "api", "ray-head", "ray-worker", "proxy")


@dataclass
class Figures:
    """What was measured, printed as it comes and once more in the end."""

    began_s: float = field(default_factory=time.monotonic)
    lines: list[tuple[str, str]] = field(default_factory=list)

    def add(self, what: str, value: str) -> None:
        """Note a figure."""
        self.lines.append((what, value))
        print(f"{what}: {value}", flush=True)

    def add_time_since_start(self, what: str) -> None:
        """Note how long everything has taken until now."""
        self.add(what, f"{(time.monotonic() - self.began_s) / 60:.1f} min")

    @contextlib.contextmanager
    def timed(self, what: str, note: str = "") -> Iterator[None]:
        """Note how long the block took, and what this machine received over the network meanwhile."""
        received, began = _received_bytes(), time.monotonic()
        yield
        took_s, mb = time.monotonic() - began, (_received_bytes() - received) / 1e6
        self.add(what, f"{took_s:.0f} s" + (f", {mb:.0f} MB received" if mb >= 1 else "") + note)

    def table(self) -> str:
        """Return all of them for a document."""
        return "\n".join(["| what | measured |", "|---|---|", *(f"| {what} | {value} |" for what, value in self.lines)])


def build(engine: Engine, figures: Figures, *, is_debian: bool, is_fresh: bool) -> dict[str, str]:
    """Build or find all images and return the operator's variables that name them, with BASE."""
    images = dict(REGISTRY)
    if is_debian:
        images = {variable: image for variable, (_, image) in DEBIAN.items()}
        missing = [word for word, image in DEBIAN.values() if is_fresh or not engine.has(image)]
        if missing:
            with figures.timed(f"images of Debian's packages: {', '.join(missing)}"):
                output(["sh", str(ROOT / "deploy/docker/debian.sh"), *missing])
    options = shlex.split(os.environ.get("XSAM_DEPLOY_BUILD_OPTIONS", ""))
    for variable, (target, image) in OURS.items():
        with figures.timed(f"build of {target}"):
            fresh = ["--no-cache"] if is_fresh else []
            engine.build(target, image, base=images["BASE"], options=[*options, *fresh])
        images[variable] = image
    return images


def look_into(engine: Engine, images: Mapping[str, str], figures: Figures) -> None:
    """Note sizes, and validate the bills of materials of the images that this repository makes."""
    for image in images.values():
        if engine.has(image):
            value = f"{engine.size_bytes(image) / 1e6:.0f} MB"
            if image.startswith("localhost/") and image != images["BASE"]:
                value += f", {_num_components(engine.run('run', '--rm', '--entrypoint', 'cat', image, BILL))} packages"
            figures.add(f"image {image}", value)


def _num_components(bill: str) -> int:
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill)
    if wrong is not None:
        raise EngineError(f"the bill of materials is not what CycloneDX takes: {wrong}")
    return len(json.loads(bill)["components"])


@contextlib.contextmanager
def stack(engine: Engine, images: Mapping[str, str]) -> Iterator[tuple[Stack, Mapping[str, int]]]:
    """Yield a run of the compose file with the ports that it is published on; remove all of it afterwards."""
    ports = {name: free_port() for name in ("XSAM_PORT", "RAY_DASHBOARD_PORT", "XSAM_HTTP_PORT", "XSAM_HTTPS_PORT")}
    secrets = {"POSTGRES_PASSWORD": os.urandom(16).hex(), "RAY_AUTH_TOKEN": os.urandom(32).hex()}
    named = {**images, **secrets, **ports, "XSAM_CODE__UPLOAD": "on"}
    with tempfile.TemporaryDirectory() as folder:
        variables = Path(folder) / "variables.env"
        variables.write_text("".join(f"{name}={value}\n" for name, value in named.items()))
        run = Stack(engine, PROJECT, variables)
        run.remove()  # of a run before that was cut off
        try:
            yield run, ports
        except BaseException:
            _keep_logs(run)
            raise
        finally:
            run.remove()


def _keep_logs(run: Stack) -> None:
    folder = Path(tempfile.mkdtemp(prefix="xsam-deploy-test-"))
    for service in SERVICES:
        with contextlib.suppress(EngineError, IndexError):
            (folder / f"{service}.log").write_text(run.logs(service))
    print(f"What the containers said: {folder}", file=sys.stderr)


def story(run: Stack, ports: Mapping[str, int], figures: Figures, *, is_debian: bool) -> None:
    """Train in the containers, look at the page through TLS, kill each of them while a job runs."""
    with figures.timed("start, until jobs are taken"):
        run.up()
        team = Team.of(run, ports)
    with team:
        with figures.timed("first job"):
            team.train()
        figures.add_time_since_start("from the command to a trained job")
        with figures.timed("job of 2 workers, one on each Ray node"):
            team.train_on_two_nodes()
        with figures.timed("study with own code, sent through TLS"):
            team.search_with_own_code()
        with figures.timed("sign-in to the page, its list of jobs and its event stream through TLS"):
            team.use_tls()
        with figures.timed("another team's attack from inside a rank beside a job of this one"):
            attempts = team.be_attacked()
        figures.add("attempts of it that succeeded", f"0 of {attempts}")
        for service in SERVICES:
            wrong = confinement(run, service, is_ours=is_debian or service not in {"postgres", "proxy"})
            if wrong:
                raise EngineError(wrong)
        figures.add("written outside of volumes and /tmp", "nothing can be, in any container; none is root's")
        for service in SERVICES:
            figures.add(f"SIGKILL of {service} while a job trains", team.survive(service))


def confinement(run: Stack, service: str, *, is_ours: bool) -> str:
    """Return what a container can do that it should not, in a sentence; nothing when all is well."""
    written = run.inside(service, "sh", "-c", "touch /usr/here 2> /dev/null && echo yes || echo no").strip()
    if written != "no":
        return f"{service} can write to its image"
    if is_ours and re.search(r"^Uid:\s+0\s", run.inside(service, "cat", "/proc/1/status"), re.M):
        return f"{service} runs as root"
    return ""


def _received_bytes() -> int:
    """Return what the network cards of this machine have received, bridges between containers left out."""
    cards = [line.split(":") for line in Path("/proc/net/dev").read_text().splitlines()[2:]]
    inner = ("lo", "veth", "podman", "docker", "br-", "cni")
    return sum(int(numbers.split()[0]) for name, numbers in cards if not name.strip().startswith(inner))


def main() -> None:
    """Run all of it; the exit code says whether all was well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", choices=["debian", "registry"], help="where bases, PostgreSQL and Caddy come from")
    parser.add_argument("--fresh", action="store_true", help="build everything anew, for the figures")
    given = parser.parse_args()
    figures = Figures()
    try:
        engine = find()
        is_debian = given.images == "debian" or (given.images is None and engine.program == "podman")
        figures.add("engine", f"{engine.version}, {os.cpu_count()} cores")
        images = build(engine, figures, is_debian=is_debian, is_fresh=given.fresh)
        look_into(engine, images, figures)
        with stack(engine, images) as (run, ports):
            story(run, ports, figures, is_debian=is_debian)
    except EngineError as e:
        sys.exit(f"Error: {e}")
    figures.add_time_since_start("all of it")
    print(f"\n{figures.table()}")


if __name__ == "__main__":
    main()
