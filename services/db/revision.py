"""`python -m xsam.services.db.revision "what changes"`: write a migration from the models, on a scratch database."""

import sys
import tempfile
from pathlib import Path

from xsam.services.db import migrate
from xsam.services.db.session import Database


def main() -> None:
    """Migrate an empty SQLite file to the newest revision and write the difference as the next one."""
    if len(sys.argv) != 2 or not sys.argv[1].strip():
        sys.exit('usage: python -m xsam.services.db.revision "what changes"')
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{Path(folder) / 'scratch.db'}")
        migrate.upgrade(database)
        migrate.write_revision(database, sys.argv[1])
        database.dispose()


if __name__ == "__main__":
    main()
