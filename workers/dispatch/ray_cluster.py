"""The Ray cluster: join or start it, and what nodes it has."""

import logging
import math
import os
import re
import secrets
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import ray
from ray._private import state as ray_state
from ray._private.state import available_resources_per_node
from ray._raylet import PlacementGroupID
from ray.core.generated import gcs_pb2
from ray.exceptions import AuthenticationError
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup

from xsam.services.cluster.service import NodeSeen
from xsam.services.cluster.traits import NodeTraits, sorted_labels
from xsam.services.settings import RayCluster

log = logging.getLogger(__name__)

NAMESPACE = "xsam"
CONNECT_TIMEOUT_S = 5.0
CONTROL_AWAY_S = 10
"""A local cluster whose control process is gone ends after this time, and is started again; left alone Ray would hope
for it for a minute, and nothing brings it back."""
_LEAST = 1e-6
_JOB_ID_DIGITS = 8
_KIND_LABEL, _KIND_RESOURCE = "ray.io/accelerator-type", "accelerator_type:"
_ID_LABEL = "ray.io/node-id"
MEMORY_LABEL = "xsam/gpu-memory-gb"
"""How much memory each GPU of a node has, where it is said and not found out."""
_IN_GROUP = re.compile(r"bundle_group_([0-9a-f]{36})")
"""A resource that Ray adds to a node for each placement group there."""
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
    for name in ("XSAM_DATABASE__URL", "XSAM_SECRETS__KEY", "XSAM_TOKEN"):
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
        labels=settings.labels or None,
        include_dashboard=settings.dashboard,
        dashboard_host="127.0.0.1",
        _system_config={"gcs_rpc_server_reconnect_timeout_s": CONTROL_AWAY_S},
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


@dataclass(frozen=True, slots=True)
class Amounts:
    """CPUs and GPUs; without any it is false."""

    cpus: float = 0.0
    gpus: float = 0.0

    @classmethod
    def of(cls, resources: Mapping[str, float]) -> Self:
        """Return what Ray's table of resources has of them."""
        return cls(resources.get("CPU", 0.0), resources.get("GPU", 0.0))

    def __bool__(self) -> bool:
        return self.cpus > _LEAST or self.gpus > _LEAST

    def __add__(self, other: "Amounts") -> "Amounts":
        return Amounts(self.cpus + other.cpus, self.gpus + other.gpus)

    def __sub__(self, other: "Amounts") -> "Amounts":
        """Return what is left, nothing where the other one has more."""
        return Amounts(_left(self.cpus, other.cpus), _left(self.gpus, other.gpus))

    def at_most(self, other: "Amounts") -> "Amounts":
        """Return the smaller of both amounts."""
        return Amounts(min(self.cpus, other.cpus), min(self.gpus, other.gpus))


@dataclass(frozen=True, slots=True)
class Group:
    """A placement group that has its resources."""

    id: str
    name: str
    is_ours: bool
    """Whether one of this service's processes asked Ray for it."""
    bundles: tuple[Amounts, ...]
    by_node: Mapping[str, Amounts]
    """What it holds."""

    @property
    def ray_job(self) -> str:
        """Ray's id of the program that asked for it, which ends each id of a group."""
        return self.id[-_JOB_ID_DIGITS:]

    @property
    def bundles_text(self) -> str:
        """Its bundles, for people."""
        return ", ".join(f"{one.cpus:g} CPUs and {one.gpus:g} GPUs" for one in self.bundles)


class ClusterView:
    """What Ray holds on its nodes, as far as it knows by now; one thread's.

    Ray's table of placement groups keeps every group there ever was, so it is asked for those that hold something.
    """

    def __init__(self) -> None:
        self._known: dict[str, Group] = {}

    def look(self) -> tuple[Sequence[Group], Mapping[str, Amounts]]:
        """Return the placement groups that hold something, and what is free on each node."""
        free = available_resources_per_node()
        ids = {found[1] for resources in free.values() for name in resources if (found := _IN_GROUP.fullmatch(name))}
        new = ids - self._known.keys()
        ours = _our_ray_jobs() if new else set()
        read = {group_id: _read_group(group_id, ours) for group_id in new}
        known = {group_id: group for group_id, group in self._known.items() if group_id in ids}
        self._known = known | {group_id: group for group_id, group in read.items() if group is not None}
        return list(self._known.values()), {node_id: Amounts.of(resources) for node_id, resources in free.items()}


def _read_group(group_id: str, ours: Collection[str]) -> Group | None:
    row = placement_group_table(_handle(group_id))
    if row.get("state") != "CREATED":
        return None
    bundles = {index: Amounts.of(resources) for index, resources in row["bundles"].items()}
    by_node: dict[str, Amounts] = {}
    for index, node_id in row["bundles_to_node_id"].items():
        by_node[node_id] = by_node.get(node_id, Amounts()) + bundles[index]
    return Group(group_id, row["name"], group_id[-_JOB_ID_DIGITS:] in ours, tuple(bundles.values()), by_node)


def remove_group(group: Group) -> None:
    """Give back what a placement group holds; processes in it end."""
    remove_placement_group(_handle(group.id))


def _handle(group_id: str) -> PlacementGroup:
    return PlacementGroup(PlacementGroupID(bytes.fromhex(group_id)))


def _our_ray_jobs() -> set[str]:
    """Return Ray's ids of all dispatchers, past ones too: runners and ranks belong to the one that started them."""
    # Ray's own reading of this table leaves the namespace out.
    accessor = ray_state.state._connect_and_get_accessor()
    rows = accessor.get_job_table(skip_submission_job_info_field=True, skip_is_running_tasks_field=True)
    jobs = [gcs_pb2.JobTableData.FromString(row) for row in rows]
    return {job.job_id.hex() for job in jobs if job.config.ray_namespace == NAMESPACE}


def _left(amount: float, taken: float) -> float:
    left = amount - taken
    return left if left > _LEAST else 0.0


def _gpu_kind(node: Mapping[str, Any]) -> str:
    """Return what Ray says the GPUs are: the label of the node, or else the resource that Ray found or was given."""
    named = [name.removeprefix(_KIND_RESOURCE) for name in node["Resources"] if name.startswith(_KIND_RESOURCE)]
    return str(node.get("Labels", {}).get(_KIND_LABEL) or next(iter(sorted(named)), ""))[:63]


def _traits(node: Mapping[str, Any]) -> NodeTraits:
    """Return what a node announces; a memory that is no number is none."""
    labels: Mapping[str, str] = node.get("Labels", {})
    try:
        memory_gb = max(0.0, float(labels.get(MEMORY_LABEL, 0)))
    except ValueError:
        memory_gb = 0.0
    others = {key: value for key, value in labels.items() if key not in (_KIND_LABEL, _ID_LABEL, MEMORY_LABEL)}
    return NodeTraits(_gpu_kind(node), memory_gb if memory_gb < math.inf else 0.0, sorted_labels(others))


def nodes() -> Sequence[NodeSeen]:
    """Return the nodes that are alive, with all they have."""
    return [
        NodeSeen(
            id=node["NodeID"],
            host=node["NodeManagerAddress"],
            num_cpus=node["Resources"].get("CPU", 0.0),
            num_gpus=node["Resources"].get("GPU", 0.0),
            traits=_traits(node),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
