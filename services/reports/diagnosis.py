"""What is wrong with a service, seen from one of its hosts, each with what to do about it. Changes nothing for long.

It asks the database and the shared folder directly, so it works while the API, the dispatchers or Ray do not.
"""

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from xsam.services.artifacts.models import Checkpoint
from xsam.services.artifacts.store import CHECKPOINTS, JOBS, prefix_of
from xsam.services.db import migrate
from xsam.services.db.clock import db_now, utc_now
from xsam.services.db.session import AWAY, Database, refusal
from xsam.services.errors import StorageError
from xsam.services.jobs.models import Job
from xsam.services.reports import gauges, isolation
from xsam.services.reports.gauges import Gauges
from xsam.services.secrets import service as team_secrets
from xsam.services.settings import Settings
from xsam.services.stores.store import ArtifactStore

CLOCK_S = 2.0
SLOW_DATABASE_S = 0.05
SLOW_STORE_S = 0.5
LOW_DISK, FULL_DISK = 0.10, 0.02
NUM_SAMPLES = 50
"""So many checkpoints, and so many folders, are compared with each other."""


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """It works; it will not for long, or somebody loses by it."""
    FAILURE = "failure"
    """Jobs are not run, or results are lost."""


class Finding(BaseModel):
    """One thing that was looked at."""

    about: str
    level: Level
    text: str
    to_do: str = ""
    """Nothing where all is well."""


def diagnose(settings: Settings) -> Iterator[Finding]:
    """Yield what is found, thing after thing; what can't be looked at because of a failure is left out."""
    store = settings.store_place.open()
    yield from _artifacts(store)
    yield from _disk(settings.data_dir.resolve())
    database = Database(settings.database_url, pool_size=1)
    try:
        yield from _reachable(database)
        if not migrate.is_current(database):
            yield _failure(
                "schema",
                "the database does not have the schema of this release",
                "An older one: `xsam migrate` (back it up first). A newer one: install the newer release here.",
            )
            return
        yield _ok("schema", "the database has the schema of this release")
        with database.read() as session:
            yield from _clock(session)
            found = gauges.read(session)
            yield from _dispatchers(found)
            yield from _nodes(found)
            yield from _leases(found)
            yield from _files(session, store)
            yield from _isolation(session, settings)
            yield from _secrets(session, settings)
    except AWAY as e:
        yield _failure(
            "database",
            f"it does not answer: {refusal(e)}",
            "Is the server up, and XSAM_DATABASE__URL right? Running jobs stop when their leases run out.",
        )
    finally:
        database.dispose()


def _ok(about: str, text: str) -> Finding:
    return Finding(about=about, level=Level.OK, text=text)


def _warning(about: str, text: str, to_do: str) -> Finding:
    return Finding(about=about, level=Level.WARNING, text=text, to_do=to_do)


def _failure(about: str, text: str, to_do: str) -> Finding:
    return Finding(about=about, level=Level.FAILURE, text=text, to_do=to_do)


def _reachable(database: Database) -> Iterator[Finding]:
    with database.read() as session:
        session.execute(select(1))
        seconds = _timed(lambda: session.execute(select(1)))
    kind = "SQLite" if database.is_sqlite else "PostgreSQL"
    if seconds > SLOW_DATABASE_S:
        yield _warning(
            "database",
            f"{kind} takes {seconds * 1e3:.0f} ms for nothing",
            "Look at its load and at the network: each turn and renewal of a lease takes several of these.",
        )
    else:
        yield _ok("database", f"{kind} answers in {seconds * 1e3:.1f} ms")


def _clock(session: Session) -> Iterator[Finding]:
    theirs = session.execute(select(db_now())).scalar_one()
    ahead_s = (utc_now() - theirs).total_seconds()
    if abs(ahead_s) > CLOCK_S:
        yield _warning(
            "clock",
            f"this host is {ahead_s:+.1f} s off the database's clock",
            "Leases go by the database's clock alone; times in logs and files do not. Start chrony or ntpd here.",
        )
    else:
        yield _ok("clock", "this host and the database agree")


def _artifacts(store: ArtifactStore) -> Iterator[Finding]:
    probe = f".doctor-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        seconds = _timed(lambda: _write_and_read(store, probe))
        ahead_s = store.stat(probe).modified_at.timestamp() - time.time()
    except (OSError, StorageError) as e:
        yield _failure(
            "artifact store",
            f"{store.name} can't be written: {getattr(e, 'strerror', None) or e}",
            "Mount the shared folder, for the user that runs the service; XSAM_DATA_DIR names it. With a bucket "
            "(XSAM_ARTIFACTS__URL): is it there, and may the credentials in AWS's variables write to it?",
        )
        return
    finally:
        with suppress(OSError, StorageError):
            store.delete(probe)
    if seconds > SLOW_STORE_S:
        yield _warning(
            "artifact store",
            f"{store.name} takes {seconds:.1f} s for a small file",
            "Checkpoints wait for it. Look at the file server's load.",
        )
    elif abs(ahead_s) > CLOCK_S:
        yield _warning(
            "artifact store",
            f"the clock of {store.name} is {ahead_s:+.1f} s off this host's",
            "Start chrony or ntpd on the file server and here.",
        )
    else:
        yield _ok("artifact store", f"{store.name} takes {seconds * 1e3:.0f} ms for a small file")


def _write_and_read(store: ArtifactStore, name: str) -> None:
    content = b"x" * 4096
    store.put_bytes(name, content)
    with store.open(name) as file:
        if file.read() != content:
            raise OSError(f"{name} does not hold what was written")


def _disk(folder: Path) -> Iterator[Finding]:
    if not folder.exists():
        return  # said already: the artifact store lies below it
    usage = shutil.disk_usage(folder)
    share = usage.free / usage.total
    text = f"{share:.0%} of the disk below {folder} is free ({usage.free / 2**30:,.1f} GiB)"
    if share >= LOW_DISK:
        yield _ok("disk", text)
        return
    yield Finding(
        about="disk",
        level=Level.FAILURE if share < FULL_DISK else Level.WARNING,
        text=text,
        to_do="Lower XSAM_ARTIFACTS__CHECKPOINT_KEEP_DAYS, or make room: checkpoints of ended jobs go first.",
    )


def _dispatchers(found: Gauges) -> Iterator[Finding]:
    if not found.dispatchers:
        yield _failure(
            "dispatcher",
            "none is alive: jobs stay queued",
            "Start `python -m xsam.workers` beside the Ray head (`xsam serve` starts one by itself).",
        )
        return
    names = ", ".join(one.name for one in found.dispatchers)
    leaders = [one for one in found.dispatchers if one.is_leader]
    if not leaders:
        yield _warning(
            "dispatcher",
            f"{names}: alive, but none leads at this moment",
            "Another takes the lead within XSAM_DISPATCHER__LEASE_S; if it does not, its log says why.",
        )
    else:
        yield _ok("dispatcher", f"{names}; {leaders[0].name} leads")
    here = version("xsam")
    others = sorted({one.counters.release for one in found.dispatchers if one.counters.release} - {here})
    if others:
        yield _warning(
            "versions",
            f"this host has {here}, dispatchers have {', '.join(others)}",
            "During an upgrade that is meant; finish it (deploy/docs/operations.md says in which order).",
        )
    else:
        yield _ok("versions", f"this host and all dispatchers have {here}")


def _nodes(found: Gauges) -> Iterator[Finding]:
    if not found.dispatchers:
        return  # what is known of the nodes is old
    if not found.nodes:
        yield _failure(
            "Ray",
            "the dispatcher sees no node",
            "`ray status` on the head; start Ray on the nodes with the head's address.",
        )
        return
    gpus = sum(node.num_gpus for node in found.nodes)
    held = sum(one.num_gpus for one in found.jobs if one.state == "running")
    yield _ok("Ray", f"{len(found.nodes)} nodes with {gpus:g} GPUs, of which jobs hold {held:g}")
    for node in found.nodes:
        if node.is_set_aside:
            yield _warning(
                "GPUs",
                f"those of {node.host} are set aside: {node.set_aside}",
                "Repair driver or device there (`nvidia-smi`); the node is tried again by itself.",
            )
        if node.foreign_gpus or node.foreign_cpus:
            yield _warning(
                "leaks",
                f"on {node.host} {node.foreign_gpus:g} GPUs and {node.foreign_cpus:g} CPUs are held in Ray by "
                "no job of this service",
                "`xsam cluster` says whose they are. Jobs are placed around them; end what is left over.",
            )


def _leases(found: Gauges) -> Iterator[Finding]:
    overdue = sum(one.num_overdue for one in found.jobs)
    if overdue:
        yield Finding(
            about="leases",
            level=Level.WARNING if any(one.is_leader for one in found.dispatchers) else Level.FAILURE,
            text=f"{overdue} running jobs have an expired lease",
            to_do="A leading dispatcher takes them back within a second. If they stay, end it: another one leads then.",
        )
    else:
        yield _ok("leases", "all running jobs renew theirs")


def _files(session: Session, store: ArtifactStore) -> Iterator[Finding]:
    """Compare rows and files: a restored database may meet files of another time."""
    newest = select(Checkpoint.job_id, Checkpoint.name).join(Job, Job.id == Checkpoint.job_id)
    rows = session.execute(newest.order_by(Job.created_at.desc()).limit(NUM_SAMPLES)).all()
    lost = {job_id for job_id, name in rows if name not in store.names(prefix_of(job_id, CHECKPOINTS))}
    if lost:
        yield _failure(
            "checkpoints",
            f"rows of {len(lost)} jobs name checkpoints that are no files, {sorted(lost)[0]} for one",
            "Is this the folder that belongs to this database? Such jobs begin anew when they are retried.",
        )
    folders = store.names(JOBS)[-NUM_SAMPLES:]
    known = set(session.scalars(select(Job.id).where(Job.id.in_(folders))))
    strays = [name for name in folders if name not in known]
    if strays:
        yield _warning(
            "files",
            f"{len(strays)} of {len(folders)} folders of jobs have no row, {strays[0]} for one",
            "An older database was restored, or the folder belongs to another service. Look before you delete.",
        )
    if not lost and not strays:
        yield _ok("files", "rows and files belong together, as far as a sample tells")


def _isolation(session: Session, settings: Settings) -> Iterator[Finding]:
    if settings.isolation.first_user_id is None:
        return
    found = [_failure("isolation", text, to_do) for text, to_do in isolation.obstacles(session, settings)]
    yield from found or [_ok("isolation", f"users of teams begin with {settings.isolation.first_user_id}")]


def _secrets(session: Session, settings: Settings) -> Iterator[Finding]:
    shut = team_secrets.unopened(session, settings.secrets.keys)
    if shut:
        yield _failure(
            "secrets",
            f"no key of XSAM_SECRETS__KEY opens {len(shut)} of them, {shut[0].name} of team {shut[0].team} for one",
            "Add the key that they were set with, behind a comma (API and dispatchers need the same keys), or set them "
            "again. Until then jobs that name them fail.",
        )
    elif settings.secrets.keys:
        yield _ok("secrets", "the keys open all that teams have set")


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
