"""`xsam migrate`: bring the configured database to the schema of this release, without serving."""

from typing import Annotated

import typer

from xsam.api.cli.options import reported
from xsam.api.cli.show import out
from xsam.services.db import migrate as migrations
from xsam.services.db.session import Database
from xsam.services.settings import get_settings


def migrate(
    database_url: Annotated[
        str | None, typer.Option(help="SQLAlchemy URL.", show_default="XSAM_DATABASE__URL, or SQLite in XSAM_DATA_DIR")
    ] = None,
) -> None:
    """Bring the database to the schema of this release; `xsam serve` and the dispatcher do the same when they start."""
    with reported():
        database = Database(database_url or get_settings().database_url)
        migrations.upgrade(database)
        state = "current" if migrations.is_current(database) else "not current"
        out.print(f"The database is {state}.")
        database.dispose()
