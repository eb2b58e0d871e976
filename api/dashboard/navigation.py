"""The views of the page, as the bar at its top lists them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """One view in the bar."""

    name: str
    path: str
    key: str
    """Goes there after `g`."""
    is_for_admins: bool = False
    """Only admins of the service see it."""


ENTRIES = (
    Entry("Home", "/home", "h"),
    Entry("Jobs", "/jobs", "j"),
    Entry("Studies", "/studies", "s"),
    Entry("Lab", "/lab", "l"),
    Entry("Queue", "/queue", "q"),
    Entry("Cluster", "/cluster", "c"),
    Entry("Usage", "/usage", "u"),
)
ADMIN_ENTRIES = (
    Entry("Teams", "/admin/teams", "t"),
    Entry("Users", "/admin/users", "n", is_for_admins=True),
    Entry("Tokens", "/admin/tokens", "k"),
    Entry("Audit", "/admin/audit", "a"),
)


def active(path: str) -> str | None:
    """Return the path of the entry that a path lies below."""
    return next((one.path for one in (*ENTRIES, *ADMIN_ENTRIES) if f"{path}/".startswith(f"{one.path}/")), None)
