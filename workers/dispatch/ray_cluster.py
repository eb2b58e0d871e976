"""The Ray cluster: join or start it, and what nodes it has."""

import logging
import os
from collections.abc import Sequence

import ray

from xsam.services.cluster.service import NodeSeen
from xsam.services.settings import RayCluster

log = logging.getLogger(__name__)

NAMESPACE = "xsam"


def connect(settings: RayCluster) -> None:
    """Join the cluster at the configured address, or start a local one that ends with this process.

    Variables with secrets are taken out of the environment first: every process of a local cluster inherits it.
    """
    for name in ("XSAM_DATABASE__URL", "XSAM_TOKEN"):
        os.environ.pop(name, None)
    common = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": logging.WARNING}
    if settings.address is not None:
        ray.init(address=settings.address, **common)
        return
    ray.init(
        address="local",  # without it Ray joins whatever cluster it finds on this machine
        num_cpus=settings.num_cpus,
        num_gpus=settings.num_gpus,
        include_dashboard=settings.dashboard,
        dashboard_host="127.0.0.1",
        **common,
    )


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
