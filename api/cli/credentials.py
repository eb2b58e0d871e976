"""What `xsam login` remembers: the service's URL and a token for each, in a file that only its owner can read."""

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import typer

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class CredentialsError(Exception):
    """The file can't be used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is remembered.

    Args:
        url: the service that commands talk to unless told otherwise.
        tokens: by URL.
    """

    url: str | None = None
    tokens: Mapping[str, str] = field(default_factory=dict)


def path() -> Path:
    """Return where the file lies: `credentials.json` in the user's folder for settings of programs."""
    return Path(typer.get_app_dir("xsam")) / "credentials.json"


def load() -> Credentials:
    """Return what is remembered; nothing where there is no file.

    Raises:
        CredentialsError: others could read the file, or it is not one that `save` wrote.
    """
    where = path()
    try:
        with where.open(encoding="utf-8") as file:
            if os.name == "posix" and os.fstat(file.fileno()).st_mode & _OTHERS:
                raise CredentialsError(f"{where} can be read by others; run: chmod 600 '{where}'")
            document = json.load(file)
        tokens = {str(url): str(token) for url, token in document["tokens"].items()}
        return Credentials(document["url"], tokens)
    except FileNotFoundError:
        return Credentials()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise CredentialsError(f"{where} can't be read ({type(e).__name__}); remove it and run `xsam login`") from e


def save(wanted: Credentials) -> Path:
    """Write the file anew and return its path; at no instant can others read it, or is it half written.

    Raises:
        CredentialsError: it can't be written.
    """
    where = path()
    fresh = where.with_name(f"{where.name}.{os.getpid()}")
    try:
        where.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump({"url": wanted.url, "tokens": dict(wanted.tokens)}, file, indent=2)
        fresh.replace(where)
    except OSError as e:
        raise CredentialsError(f"{where} can't be written: {e.strerror}") from e
    return where
