import pytest

from xsam.services.retention.rules import Kind, Rules, RulesOfTeams, of_service
from xsam.services.settings import ArtifactSettings

SERVICE = Rules({Kind.LOGS: 30.0, Kind.ROWS: 365.0}, max_bytes=100)


@pytest.mark.parametrize(
    ("kind", "age_days", "is_over"),
    [(Kind.LOGS, 31, True), (Kind.LOGS, 30, False), (Kind.WEIGHTS, 10_000, False)],
)
def test_rules__keep_what_they_do_not_name_for_ever(kind: Kind, age_days: float, is_over: bool) -> None:
    assert SERVICE.is_over(kind, age_days) is is_over


def test_teams__have_otherwise_only_what_they_name() -> None:
    rules = RulesOfTeams(SERVICE, {"red": {"log_days": 1.0, "weights_days": 7.0}, "blue": {"max_bytes": 0}})
    assert rules.of("green") == SERVICE
    assert rules.of("red") == Rules({Kind.LOGS: 1.0, Kind.ROWS: 365.0, Kind.WEIGHTS: 7.0}, 100)
    assert rules.of("blue").max_bytes == 0
    assert rules.shortest_days == 1.0
    assert rules.names(Kind.WEIGHTS)
    assert not rules.names(Kind.BUNDLES)


def test_service__keeps_checkpoints_for_a_month_and_all_else_for_ever() -> None:
    assert of_service(ArtifactSettings()) == Rules({Kind.CHECKPOINTS: 30.0}, None)
