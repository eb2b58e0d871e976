"""What is kept for how long: the service's rules, and what a team has otherwise. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from xsam.services.settings import ArtifactSettings


class Kind(StrEnum):
    """What can be forgotten."""

    CHECKPOINTS = "checkpoints"
    WEIGHTS = "weights"
    LOGS = "logs"
    """What was printed, and everything else in a job's folder."""
    METRICS = "metrics"
    """Epochs and searches, which are thinned."""
    ROWS = "rows"
    """Jobs and studies themselves, with whatever they still have."""
    BUNDLES = "bundles"
    ENVIRONMENTS = "environments"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How much of a kind of a team may go, or has gone."""

    team: str
    kind: Kind
    num: int
    num_bytes: int


OF_FILES = (Kind.CHECKPOINTS, Kind.WEIGHTS, Kind.LOGS)


@dataclass(frozen=True, slots=True)
class Rules:
    """What one team's ended jobs are kept for.

    Args:
        days: by kind; a kind that is not named is kept for ever.
        max_bytes: of the files of ended jobs.
    """

    days: Mapping[Kind, float] = field(default_factory=dict)
    max_bytes: int | None = None

    def is_over(self, kind: Kind, age_days: float) -> bool:
        """Return whether something that ended so long ago has been kept long enough."""
        return kind in self.days and age_days > self.days[kind]

    @property
    def shortest_days(self) -> float:
        """The age below which nothing goes by age."""
        return min(self.days.values(), default=float("inf"))

    def but(self, own: Mapping[str, Any]) -> "Rules":
        """Return these rules with what a team's `Retention` document has otherwise."""
        named = {kind: own[_FIELDS[kind]] for kind in Kind if own.get(_FIELDS[kind]) is not None}
        max_bytes = own.get("max_bytes")
        return replace(self, days={**self.days, **named}, max_bytes=self.max_bytes if max_bytes is None else max_bytes)


_FIELDS = {
    Kind.CHECKPOINTS: "checkpoint_days",
    Kind.WEIGHTS: "weights_days",
    Kind.LOGS: "log_days",
    Kind.METRICS: "metrics_days",
    Kind.ROWS: "row_days",
    Kind.BUNDLES: "bundle_days",
    Kind.ENVIRONMENTS: "environment_days",
}
"""Of `Retention`."""


def of_service(settings: ArtifactSettings) -> Rules:
    """Return the rules for teams that have none of their own."""
    days = {
        Kind.CHECKPOINTS: settings.checkpoint_keep_days,
        Kind.WEIGHTS: settings.weights_keep_days,
        Kind.LOGS: settings.log_keep_days,
        Kind.METRICS: settings.metrics_keep_days,
        Kind.ROWS: settings.row_keep_days,
        Kind.BUNDLES: settings.bundle_keep_days,
        Kind.ENVIRONMENTS: settings.environment_keep_days,
    }
    return Rules({kind: value for kind, value in days.items() if value is not None}, settings.max_team_bytes)


class RulesOfTeams:
    """The rules of every team.

    Args:
        service: for teams without any of their own.
        teams: `Retention` documents by team.
    """

    def __init__(self, service: Rules, teams: Mapping[str, Mapping[str, Any]]) -> None:
        self._service = service
        self._own = {team: service.but(document) for team, document in teams.items()}

    def of(self, team: str) -> Rules:
        """Return a team's."""
        return self._own.get(team, self._service)

    def all(self) -> Iterator[Rules]:
        """Yield the service's and those of teams that have their own."""
        yield self._service
        yield from self._own.values()

    @property
    def shortest_days(self) -> float:
        """The age below which nothing of any team goes by age."""
        return min(one.shortest_days for one in self.all())

    @property
    def has_sizes(self) -> bool:
        """Whether any team's files are limited by their size."""
        return any(one.max_bytes is not None for one in self.all())

    def names(self, kind: Kind) -> bool:
        """Return whether something of a kind is ever forgotten."""
        return any(kind in one.days for one in self.all())
