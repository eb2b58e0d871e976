"""The service as README's "For a team" sets it up: a Ray cluster of two nodes, the API, and a dispatcher that joins."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.ports import free_port
from tests.support.processes import descendants
from tests.support.served import Served, served, start, stop, wait_for, wait_until
from xsam.services.cluster import leader
from xsam.services.cluster import service as cluster

STOP_S = 40.0
_DISPATCHER = [sys.executable, "-m", "xsam.workers"]
RAY = Path(sys.executable).with_name("ray")


class TeamService:
    """The service on a cluster that was there before, with a dispatcher that can be replaced.

    Args:
        served: the API.
        dispatcher: joined the cluster.
        environment: of a dispatcher.
        stack: ends what is started later.
    """

    def __init__(
        self,
        served: Served,
        dispatcher: "subprocess.Popen[bytes]",
        environment: Mapping[str, str],
        stack: contextlib.ExitStack,
    ) -> None:
        self.served = served
        self.dispatcher = dispatcher
        self._environment = environment
        self._stack = stack

    def restart_api(self) -> None:
        """End the API in order and start another at its address."""
        old = self.served
        stop(old.process)
        port = int(old.url.rpartition(":")[2])
        options = ("--auth", "none", "--no-dispatcher")
        self.served = start(old.data_dir, *options, port=port, environment=self._environment)
        self._stack.callback(stop, self.served.process)
        wait_for(self.served, "/healthz")

    def replace_dispatcher(self) -> None:
        """Start another one, which stands by; then end the first in order, and wait until the other leads."""
        old, former = self.dispatcher, self.leading()
        self.dispatcher = self._stack.enter_context(_running(_DISPATCHER, self._environment))
        wait_until(lambda: self._num_dispatchers() == 2)
        old.terminate()
        old.wait(STOP_S)
        wait_until(lambda: self.leading() not in (None, former))

    def leading(self) -> str | None:
        """Return which dispatcher leads."""
        with self.served.database.read() as session:
            return leader.current(session, leader.DISPATCH)

    def _num_dispatchers(self) -> int:
        with self.served.database.read() as session:
            return len(cluster.live_dispatchers(session))


@contextlib.contextmanager
def team_service(
    data_dir: Path, *options: str, num_cpus: int, num_gpus: int, environment: Mapping[str, str]
) -> Iterator[TeamService]:
    """Start a head without GPUs, a node with them, the API and a dispatcher; end them in the opposite order.

    The home folder has what any program that starts a Ray of its own leaves there: with that file `ray start --head`
    demands a token, which no other node brings, unless it is told what is meant.

    Args:
        data_dir: the service's, shared by all of them.
        options: of `xsam serve`.
        num_cpus: of the node beside the head.
        num_gpus: likewise.
        environment: of all processes.
    """
    home = data_dir.with_name("home")
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text("0" * 64)
    environment = {**environment, "HOME": str(home), "RAY_AUTH_MODE": "disabled"}
    address = f"127.0.0.1:{free_port()}"
    head = ("--head", "--port", address.rpartition(":")[2], "--num-cpus", "1", "--num-gpus", "0")
    node = ("--address", address, "--num-cpus", str(num_cpus), "--num-gpus", str(num_gpus))
    quiet = ("--ray-client-server-port", str(free_port()), "--include-dashboard", "false")
    with contextlib.ExitStack() as stack:
        stack.enter_context(_ray([*head, *quiet], environment))
        wait_until(lambda: _answers(address))
        joined = stack.enter_context(_ray(node, environment))
        service = stack.enter_context(served(data_dir, *options, "--no-dispatcher", environment=environment))
        named = {"XSAM_DATA_DIR": str(service.data_dir), "XSAM_RAY__ADDRESS": address}
        dispatcher = stack.enter_context(_running(_DISPATCHER, environment | named))

        def sees_both() -> bool:
            ended = [one.args for one in (joined, dispatcher) if one.poll() is not None]
            assert not ended, f"it ended: {ended}"
            with service.database.read() as session:
                return len(cluster.live_nodes(session)) == 2

        wait_until(sees_both)
        yield TeamService(service, dispatcher, environment | named, stack)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _ray(options: Sequence[str], environment: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a node of the cluster; it is killed with all its processes, since Ray's own way takes half a minute."""
    command = [str(RAY), "start", "--block", *options]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        for pid in [process.pid, *descendants(process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def _running(command: Sequence[str], environment: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
