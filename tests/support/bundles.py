"""Bundles of code for tests: packed from texts, and uploaded for a team."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from xsam.services.bundles import archive, service
from xsam.services.bundles.archive import Bundle
from xsam.services.bundles.service import Origin
from xsam.services.db.session import Database
from xsam.services.settings import CodeSettings
from xsam.services.stores.folder import FolderStore
from xsam.services.teams.roles import Actor

LIMITS = archive.limits_of(CodeSettings())


def packed(files: Mapping[str, str]) -> Bundle:
    """Return the bundle of a folder with these files."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return archive.pack(Path(folder), LIMITS)


def add(database: Database, root: Path, bundle: Bundle, actor: Actor) -> str:
    """Upload a bundle for a team and return its id."""
    with database.unit_of_work() as session:
        content = bundle.packed
        service.add(session, FolderStore(root), bundle.id, content, actor=actor, limits=LIMITS, origin=Origin())
    return bundle.id
