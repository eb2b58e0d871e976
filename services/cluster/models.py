"""Rows about the machines: what the dispatcher last saw of the Ray cluster."""

from datetime import datetime
from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from xsam.services.db.base import Base
from xsam.services.db.clock import db_now


class Dispatcher(Base):
    """A dispatcher process and its last sign of life."""

    __tablename__ = "dispatchers"

    id: Mapped[str] = mapped_column(String(100), primary_key=True)
    """`host:pid:start`."""
    started_at: Mapped[datetime] = mapped_column(default=db_now())
    seen_at: Mapped[datetime] = mapped_column(default=db_now())
    num_warm_runners: Mapped[int] = mapped_column(default=0)
    counters: Mapped[dict[str, Any] | None]
    """`DispatcherCounters` as a document."""


class ClusterNode(Base):
    """A node of the Ray cluster as last seen."""

    __tablename__ = "cluster_nodes"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Ray's node id."""
    host: Mapped[str] = mapped_column(String(255))
    num_cpus: Mapped[float]
    num_gpus: Mapped[float]
    gpu_kind: Mapped[str | None] = mapped_column(String(63))
    """What its GPUs are, as Ray names them; null where it does not say."""
    gpu_memory_gb: Mapped[float | None]
    """Of each of them, of the smallest, in 10^9 bytes; null where nobody knows."""
    labels: Mapped[dict[str, str] | None]
    """As Ray has them, but for the node's id and kind."""
    is_alive: Mapped[bool]
    seen_at: Mapped[datetime] = mapped_column(default=db_now())
    held_by_others: Mapped[list[dict[str, Any]] | None]
    """What Ray holds there for none of our running jobs: `ForeignHolding` as a document."""
    set_aside: Mapped[str | None]
    """Why its GPUs are not used; null while they work, as far as is known."""


class ClusterSample(Base):
    """How full the cluster was: at one instant, or on average over an hour that is long ago."""

    __tablename__ = "cluster_samples"

    span_s: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """60, or 3600 of an average."""
    at: Mapped[datetime] = mapped_column(primary_key=True)
    """Start of the minute or hour."""
    num_nodes: Mapped[float]
    num_gpus: Mapped[float]
    num_cpus: Mapped[float]
    used_gpus: Mapped[float]
    used_cpus: Mapped[float]
    num_running: Mapped[float]
    num_queued: Mapped[float]
    teams: Mapped[dict[str, Any]]
    """GPUs and CPUs that each team held: `{"vision": [6, 24]}`."""


class Cordon(Base):
    """Somebody's word that a node takes no new jobs."""

    __tablename__ = "cordons"

    node: Mapped[str] = mapped_column(String(255), primary_key=True)
    """A host, a Ray node's id, or `*` for all: maintenance."""
    reason: Mapped[str | None]
    set_by: Mapped[str] = mapped_column(String(63))
    since: Mapped[datetime]
    drain_at: Mapped[datetime | None]
    """When jobs that still run there are asked to move; null lets them finish."""


class LeaderLease(Base):
    """Who leads, among processes of which only one may act at a time."""

    __tablename__ = "leader_leases"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    """What is led."""
    holder: Mapped[str] = mapped_column(String(100))
    term: Mapped[int]
    """Grows each time another one takes over."""
    since: Mapped[datetime]
    expires_at: Mapped[datetime]
