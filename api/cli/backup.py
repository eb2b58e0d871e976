"""`xsam backup` and `xsam restore`: the whole service in one file."""

from pathlib import Path
from typing import Annotated

import typer

from xsam.api.cli.options import CommandError, reported, settings_with
from xsam.api.cli.show import out
from xsam.services import backup as backups
from xsam.services.backup import BackupError, Manifest
from xsam.services.db.session import Database
from xsam.services.errors import StorageError

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A tar file; keep it private.")]


def backup(
    file: FileArgument,
    no_files: Annotated[
        bool, typer.Option("--no-files", help="Rows only: weights, checkpoints and logs are kept by other means.")
    ] = False,
) -> None:
    """Write all rows and files of the service into one file, while it runs. Reads the settings of `xsam serve`."""
    with reported():
        settings = settings_with({})
        database = Database(settings.database_url, pool_size=1)
        try:
            made = backups.make(database, settings.store_place.open(), file, with_files=not no_files)
        except (BackupError, StorageError, OSError) as e:
            raise CommandError(str(e)) from e
        finally:
            database.dispose()
    out.print(f"{file}: {_contents(made)}.")


def restore(file: FileArgument) -> None:
    """Bring a backup into an empty database and data folder: all of it, or nothing. Stop the service first."""
    with reported():
        settings = settings_with({})
        database = Database(settings.database_url, pool_size=1)
        try:
            made = backups.restore(database, settings.store_place.open(), file)
        except (BackupError, StorageError) as e:
            raise CommandError(str(e)) from e
        finally:
            database.dispose()
    out.print(f"Restored {_contents(made)}. Start the service; what ran then goes on from its newest checkpoint.")


def _contents(made: Manifest) -> str:
    rows = f"{sum(made.num_rows.values()):,} rows ({made.num_rows['jobs']:,} jobs)"
    files = f"{made.num_files:,} files of {made.num_bytes / 2**20:,.1f} MiB"
    return f"{rows} and {files}, of {made.made_at:%Y-%m-%d %H:%M} UTC, release {made.release}"
