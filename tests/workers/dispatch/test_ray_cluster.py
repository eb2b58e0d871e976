"""Joining and starting Ray: what a local cluster leaves behind, and what a person reads when there is none to join."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from xsam.services.settings import RayCluster
from xsam.workers.dispatch import ray_cluster
from xsam.workers.dispatch.ray_cluster import ClusterError

_START_LOCAL = """
import ray
from xsam.services.settings import RayCluster
from xsam.workers.dispatch import ray_cluster
ray_cluster.connect(RayCluster(num_cpus=1))
print(len(ray_cluster.nodes()))
"""


@pytest.mark.ray
def test_connect__local_cluster_leaves_no_token_in_the_home_folder(tmp_path: Path) -> None:
    """With one there, `ray start --head` on this host would demand it of every node."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    done = subprocess.run(
        [sys.executable, "-c", _START_LOCAL],
        env=environment | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), list(tmp_path.iterdir())) == ("1", []), done.stderr


def test_connect__without_a_cluster_at_the_address_says_so_in_one_sentence() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(ClusterError, match=f"^XSAM_RAY__ADDRESS: nothing answers at {address}: .*refused$"):
        ray_cluster.connect(RayCluster(address=address))
