"""A job's own code in a rank: unpacked once on the node, in front of everything that Python imports."""

import importlib
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from xsam.services.bundles import archive
from xsam.services.errors import InvalidRequestError, StorageError
from xsam.services.stores.store import StorePlace
from xsam.workers.environments import building
from xsam.workers.environments.store import EnvironmentStore
from xsam.workers.environments.uv import RequirementsError
from xsam.workers.messages import Assignment
from xsam.workers.training.errors import TargetError


def with_code(assignment: Assignment) -> Assignment:
    """Return the assignment with its code on this node and on `sys.path`; as it is where it brings none.

    The process keeps what it imports, so it must not be lent to another job afterwards.

    Raises:
        TargetError: the code can't be had, or has no such root.
    """
    code = assignment.spec.code
    if code is None or assignment.context.code_dir is not None:
        return assignment
    if assignment.code_file is None or assignment.code_root is None or assignment.place is None:
        raise TargetError(f"code is bundle {code.bundle}, but this rank was not told where it lies")
    if assignment.spec.requirements is not None:
        if assignment.lock is None or assignment.environments is None:
            raise TargetError(f"requirements.lock is {assignment.spec.requirements.lock}, which is gone")
        use_packages(assignment.lock, assignment.environments)
    folder = unpacked(assignment.place, assignment.code_file, assignment.code_root, code.bundle, code.root)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
    return replace(assignment, context=replace(assignment.context, code_dir=folder))


def use_packages(lock: str | None, environments: EnvironmentStore) -> None:
    """Put the packages of a lock in front of `sys.path`, installed if this node has not got them yet.

    Programs that this process starts find them too.

    Raises:
        TargetError: they can't be installed.
    """
    if lock is None:
        return
    try:
        packages = building.ready(lock, environments)
    except (OSError, RequirementsError) as e:
        raise TargetError(str(e)) from e
    if packages is None or str(packages) in sys.path:
        return
    sys.path.insert(0, str(packages))
    importlib.invalidate_caches()
    environment = packages.parents[2]
    os.environ["VIRTUAL_ENV"] = str(environment)
    os.environ["PATH"] = f"{environment / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def unpacked(place: StorePlace, code_file: str, code_root: Path, bundle: str, root: str) -> Path:
    """Return the folder from which a bundle's code is imported, unpacked if it was not yet.

    Raises:
        TargetError: the code can't be had, or has no such root.
    """
    target = code_root / archive.digest_of(bundle)
    store = place.open()
    try:
        with tempfile.TemporaryDirectory(prefix="xsam-bundle-") as scratch:
            packed = store.path(code_file)
            if packed is None:
                packed = Path(scratch) / "packed"
                if not target.is_dir():
                    store.get(code_file, packed)
            folder = archive.unpack(packed, target, bundle)
    except (OSError, InvalidRequestError, StorageError) as e:
        raise TargetError(f"code: bundle {bundle} can't be unpacked: {e}") from e
    folder = folder / root
    if not folder.is_dir():
        raise TargetError(f"code.root is {root!r}, which is no folder of bundle {bundle}")
    return folder
