"""The service as README's "For a team" sets it up: a Ray cluster of two nodes, the API, and a dispatcher that joins."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.ports import free_port
from tests.support.served import Served, served, wait_until
from xsam.services.cluster import service as cluster

STOP_S = 40.0
RAY = Path(sys.executable).with_name("ray")


@contextlib.contextmanager
def team_service(
    data_dir: Path, *options: str, num_cpus: int, num_gpus: int, environment: Mapping[str, str]
) -> Iterator[Served]:
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
        stack.enter_context(_running([str(RAY), "start", "--block", *head, *quiet], environment))
        wait_until(lambda: _answers(address))
        joined = stack.enter_context(_running([str(RAY), "start", "--block", *node], environment))
        service = stack.enter_context(served(data_dir, *options, "--no-dispatcher", environment=environment))
        named = {"XSAM_DATA_DIR": str(service.data_dir), "XSAM_RAY__ADDRESS": address}
        dispatcher = stack.enter_context(_running([sys.executable, "-m", "xsam.workers"], environment | named))

        def sees_both() -> bool:
            ended = [one.args for one in (joined, dispatcher) if one.poll() is not None]
            assert not ended, f"it ended: {ended}"
            with service.database.read() as session:
                return len(cluster.live_nodes(session)) == 2

        wait_until(sees_both)
        yield service


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return False
    return True


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
