"""What on this host keeps ranks from running as users of their teams, or lets these at more than theirs."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from xsam.services.settings import Settings
from xsam.services.teams.models import Team

_HARD_LINKS = Path("/proc/sys/fs/protected_hardlinks")


def obstacles(session: Session, settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield what is wrong and what to do about it; nothing where ranks run as Ray's user."""
    first = settings.isolation.first_user_id
    if first is None:
        return
    for pid in _raylets():
        with suppress(OSError):
            if user := Path(f"/proc/{pid}").stat().st_uid:
                yield (
                    f"Ray's process {pid} runs as user {user}",
                    "Start Ray as root: ranks become users of their teams.",
                )
    wanted = (settings.artifact_root, settings.dataset_root, settings.model_root)
    for folder in sorted({closed for path in wanted for closed in _closed_above(path)}):
        yield f"users of teams can't get through {folder}", f"`chmod o+x {folder}`; names in it stay unseen."
    highest = session.scalar(select(func.max(Team.number))) or 0
    if taken := [name for name, user in _users() if first <= user <= first + highest]:
        yield (
            f"users of this host have ids of teams: {', '.join(taken)}",
            "Move them, or the range before its first run.",
        )
    if _HARD_LINKS.exists() and _HARD_LINKS.read_text().strip() != "1":
        yield "teams can make hard links to files that are not theirs", "`sysctl fs.protected_hardlinks=1`."


def _closed_above(path: Path) -> list[Path]:
    """Return the folders on the way to a path that let no other user through."""
    return [folder for folder in path.parents if folder.is_dir() and not folder.stat().st_mode & 0o001]


def _users() -> list[tuple[str, int]]:
    with suppress(OSError):
        lines = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
        return [(line[0], int(line[2])) for line in lines if len(line) > 2 and line[2].isdecimal()]
    return []


def _raylets() -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):
            if path.read_text().strip() == "raylet":
                found.append(int(path.parent.name))
    return found
