"""Who acts on jobs, as far as jobs need to know."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Actor:
    """Who calls: a user of a team."""

    user: str
    team: str
