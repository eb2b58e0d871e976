from pathlib import Path

from typer.testing import CliRunner

from xsam.api.cli.main import app
from xsam.services.db import migrate
from xsam.services.db.session import Database


def test_migrate__brings_an_empty_database_to_this_release(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'xsam.db'}"
    for _ in range(2):
        result = CliRunner().invoke(app, ["migrate", "--database-url", url])
        assert (result.exit_code, result.output) == (0, "The database is current.\n")
    database = Database(url)
    assert migrate.is_current(database)
    database.dispose()


def test_help__names_every_command_and_group() -> None:
    output = CliRunner().invoke(app, ["--help"]).output
    for name in ("serve", "migrate", "submit", "why", "study", "token", "team", "demo"):
        assert f" {name} " in output, name
