"""The Ray cluster: join or start it, and what nodes it has."""

import logging
import os
import secrets
import socket
from collections.abc import Sequence

import ray
from ray.exceptions import AuthenticationError

from xsam.services.cluster.service import NodeSeen
from xsam.services.settings import RayCluster

log = logging.getLogger(__name__)

NAMESPACE = "xsam"
CONNECT_TIMEOUT_S = 5.0
_TOKEN_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


class ClusterError(Exception):
    """The Ray cluster can't be joined; the message says why and what to do."""


def connect(settings: RayCluster) -> None:
    """Join the cluster at the configured address, or start a local one that ends with this process.

    Variables with secrets are taken out of the environment first: every process of a local cluster inherits it. A local
    cluster gets a token of its own through the environment: left alone, Ray would write one into the home folder, and
    `ray start` would demand that token from then on.

    Raises:
        ClusterError: there is no cluster at the address, or it wants another token.
    """
    for name in ("XSAM_DATABASE__URL", "XSAM_TOKEN"):
        os.environ.pop(name, None)
    common = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": logging.WARNING}
    if settings.address is not None:
        _join(settings.address, common)
        return
    if not any(name in os.environ for name in _TOKEN_VARIABLES):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    ray.init(
        address="local",  # without it Ray joins whatever cluster it finds on this machine
        num_cpus=settings.num_cpus,
        num_gpus=settings.num_gpus,
        include_dashboard=settings.dashboard,
        dashboard_host="127.0.0.1",
        **common,
    )


def _join(address: str, options: dict[str, object]) -> None:
    host, separator, port = address.rpartition(":")
    try:
        if separator and port.isdecimal():
            # Ray itself would go on trying for minutes, with lines of its own in the log.
            socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()
    except OSError as e:
        raise ClusterError(f"XSAM_RAY__ADDRESS: nothing answers at {address}: {e}") from e
    try:
        ray.init(address=address, **options)
    except (AuthenticationError, ConnectionError, RuntimeError, ValueError) as e:
        raise ClusterError(
            f"XSAM_RAY__ADDRESS: can't join the Ray cluster at {address}: {type(e).__name__}. All of its processes "
            "need the same version of Ray and the same RAY_AUTH_MODE (token or disabled); with tokens, the same "
            "RAY_AUTH_TOKEN, or the same file at RAY_AUTH_TOKEN_PATH"
        ) from e


def nodes() -> Sequence[NodeSeen]:
    """Return the nodes that are alive, with all they have."""
    return [
        NodeSeen(
            id=node["NodeID"],
            host=node["NodeManagerAddress"],
            num_cpus=node["Resources"].get("CPU", 0.0),
            num_gpus=node["Resources"].get("GPU", 0.0),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
