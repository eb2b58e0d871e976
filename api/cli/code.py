"""The folder beside a specification: uploaded before the specification is sent."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xsam.api.cli.options import CommandError
from xsam.api.cli.show import err
from xsam.api.client import Client
from xsam.services.errors import InvalidRequestError
from xsam.services.requirements.lines import packages_of


def with_code(client: Client, spec: Mapping[str, Any], source: str | None) -> dict[str, Any]:
    """Return a specification with the folder in its `code` uploaded and named; says what was left out.

    Args:
        client: of the service.
        spec: as it was read.
        source: its file; relative folders start beside it. None or `-`: from the working folder.

    Raises:
        CommandError: there is no such folder, or it holds too much.
        ApiError: the service refuses it.
    """
    beside = Path(source).parent if source not in (None, "-") else Path()
    try:
        locked = _with_lock(client, spec, beside)
        resolved, uploaded = client.bundles.resolve(locked, beside)
    except (InvalidRequestError, OSError) as e:
        raise CommandError(str(e)) from e
    for one in uploaded:
        if one.left_out_secrets:
            names = ", ".join(one.left_out_secrets[:10])
            err.print(f"Left out, since they look like secrets: {names}", markup=False, highlight=False)
        if one.is_new:
            kib = one.bundle.packed_bytes / 1024
            err.print(f"Uploaded {one.bundle.num_files} files, {kib:.1f} KiB: {one.bundle.id[:19]}", markup=False)
    return resolved


def _with_lock(client: Client, spec: Mapping[str, Any], beside: Path) -> dict[str, Any]:
    """Return a specification with its requirements locked and named, in a study those of its base."""
    if isinstance(spec.get("base"), Mapping):
        return {**spec, "base": _with_lock(client, spec["base"], beside)}
    resolved, locked = client.requirements.resolve(spec, beside)
    if locked is not None:
        packages = packages_of(locked.lock or "")
        names = ", ".join(packages[:20]) + (", ..." if len(packages) > 20 else "")
        err.print(f"Locked {len(packages)} packages: {names or 'the service has all of them'}", markup=False)
    return resolved
