from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.callers import ROOT, admin_token, make_member, make_team
from xsam.services.db.session import Database
from xsam.services.errors import ConflictError, ForbiddenError, InfeasibleError, NotFoundError
from xsam.services.jobs import service as jobs
from xsam.services.scheduling.snapshot import take_snapshot
from xsam.services.specs.job import JobSpec
from xsam.services.teams import audit, bootstrap, service, tokens
from xsam.services.teams.models import Team
from xsam.services.teams.quota import TeamQuota
from xsam.services.teams.roles import Actor, Principal, Role
from xsam.services.teams.schemas import Quota, TeamPatch, TeamWrite

LEAD = Principal("lea", "red", role=Role.ADMIN)


def _patch(database: Database, name: str, **changes: Any) -> Team:
    with database.unit_of_work() as session:
        return service.patch_team(session, ROOT, name, TeamPatch.model_validate(changes))


def _actions(database: Database, principal: Principal = ROOT) -> list[tuple[str, str, str]]:
    with database.read() as session:
        events, _ = audit.list_events(session, principal)
    return [(event.actor, event.action, event.subject) for event in reversed(events)]


def test_put_team__creates_then_replaces_the_whole(database: Database) -> None:
    with database.unit_of_work() as session:
        _, is_new = service.put_team(session, ROOT, "red", TeamWrite(weight=2, quota=Quota(gpus=4, running_jobs=3)))
    assert is_new
    with database.unit_of_work() as session:
        team, is_new = service.put_team(session, ROOT, "red", TeamWrite(quota=Quota(cpus=8)))
    assert not is_new
    assert (team.weight, team.quota_gpus, team.quota_cpus, team.quota_running_jobs) == (1.0, None, 8.0, None)


def test_patch_team__changes_what_is_named_and_null_takes_a_limit_away(database: Database) -> None:
    make_team(database, "red", weight=2, gpus=4, running_jobs=3)
    team = _patch(database, "red", quota={"gpus": None, "cpus": 16})
    assert (team.weight, team.quota_gpus, team.quota_cpus, team.quota_running_jobs) == (2.0, None, 16.0, 3)
    assert _patch(database, "red", weight=0.5).weight == 0.5
    with pytest.raises(NotFoundError):
        _patch(database, "blue", weight=1)


def test_limits__are_not_for_a_team_to_raise_itself(database: Database) -> None:
    make_team(database, "red", gpus=4)
    with pytest.raises(ForbiddenError), database.unit_of_work() as session:
        service.patch_team(session, LEAD, "red", TeamPatch(quota=Quota(gpus=100)))
    with pytest.raises(ForbiddenError), database.unit_of_work() as session:
        service.put_team(session, LEAD, "red", TeamWrite())


def test_teams__show_each_caller_their_own(database: Database) -> None:
    for name in ("red", "blue", "green"):
        make_team(database, name)
    with database.read() as session:
        assert [team.name for team in service.list_teams(session, ROOT)] == ["blue", "green", "red"]
        assert [team.name for team in service.list_teams(session, ROOT, after="blue", limit=1)] == ["green"]
        assert [team.name for team in service.list_teams(session, LEAD)] == ["red"]
        with pytest.raises(NotFoundError):
            service.get_team(session, LEAD, "blue")


def test_members__are_managed_by_the_teams_admin(database: Database) -> None:
    make_team(database, "red")
    with database.unit_of_work() as session:
        assert service.put_member(session, LEAD, "red", "ann", Role.MEMBER)[1]
        member, is_new = service.put_member(session, LEAD, "red", "ann", Role.VIEWER)
        assert (member.role, is_new) == (Role.VIEWER, False)
        service.put_member(session, LEAD, "red", "bob", Role.MEMBER)
        assert [m.user_name for m in service.list_members(session, LEAD, "red", after="ann")] == ["bob"]
        service.remove_member(session, LEAD, "red", "ann")
        with pytest.raises(NotFoundError):
            service.remove_member(session, LEAD, "red", "ann")
    expected = [("member_added", "ann"), ("member_changed", "ann"), ("member_added", "bob"), ("member_removed", "ann")]
    assert [one[1:] for one in _actions(database) if one[0] == "lea"] == expected


@pytest.mark.parametrize("role", [Role.VIEWER, Role.MEMBER])
def test_members__are_not_managed_by_others(database: Database, role: Role) -> None:
    make_team(database, "red")
    ann = make_member(database, "ann", "red", role)
    with pytest.raises(ForbiddenError), database.unit_of_work() as session:
        service.put_member(session, ann, "red", "ann", Role.ADMIN)
    with pytest.raises(ForbiddenError), database.unit_of_work() as session:
        service.remove_member(session, ann, "red", "ann")


def test_put_user__keeps_one_admin(database: Database) -> None:
    admin_token(database)
    with pytest.raises(ConflictError, match="only admin"), database.unit_of_work() as session:
        service.put_user(session, ROOT, "root", is_admin=False)
    with database.unit_of_work() as session:
        assert service.put_user(session, ROOT, "eve", is_admin=True)[1]
        user, is_new = service.put_user(session, ROOT, "root", is_admin=False)
    assert (user.is_admin, is_new) == (False, False)
    with pytest.raises(ForbiddenError), database.unit_of_work() as session:
        service.put_user(session, LEAD, "lea", is_admin=True)


def test_audit__tells_a_team_admin_of_that_team_only_and_others_nothing(database: Database) -> None:
    make_team(database, "red")
    make_team(database, "blue")
    make_member(database, "bob", "blue", Role.MEMBER)
    assert _actions(database, LEAD) == [("root", "team_created", "red")]
    assert len(_actions(database)) == 3
    with pytest.raises(ForbiddenError):
        _actions(database, Principal("ann", "red", role=Role.MEMBER))


def test_audit__pages_backwards(database: Database) -> None:
    for name in ("red", "blue", "green"):
        make_team(database, name)
    with database.read() as session:
        first, before = audit.list_events(session, ROOT, limit=2)
        second, end = audit.list_events(session, ROOT, limit=2, before=before)
    assert [event.subject for event in [*first, *second]] == ["green", "blue", "red"]
    assert end is None


def test_first_admin_token__is_made_once(database: Database) -> None:
    with database.unit_of_work() as session:
        text = bootstrap.first_admin_token(session)
    assert text is not None
    with database.unit_of_work() as session:
        assert bootstrap.first_admin_token(session) is None
        assert tokens.authenticate(session, text).principal.is_admin
    assert [one[:2] for one in _actions(database)] == [("system", "token_created")]


def test_snapshot__carries_quotas_and_weights(database: Database) -> None:
    make_team(database, "red", weight=3, gpus=4, running_jobs=2)
    make_team(database, "blue")
    with database.read() as session:
        snapshot = take_snapshot(session, [])
    assert snapshot.quotas == {"red": TeamQuota(gpus=4, running_jobs=2)}
    assert {team: share.weight for team, share in snapshot.shares.items()} == {"red": 3.0, "blue": 1.0}


@pytest.mark.parametrize(
    ("quota", "resources", "field"),
    [
        ({"gpus": 2}, {"num_workers": 3, "gpus_per_worker": 1}, "resources.num_workers"),
        ({"gpus": 2}, {"gpus_per_worker": 4}, "resources.gpus_per_worker"),
        ({"cpus": 3}, {"num_workers": 2, "cpus_per_worker": 2}, "resources.num_workers"),
        ({"running_jobs": 0}, {}, None),
    ],
)
def test_submit__refuses_what_the_quota_could_never_hold(
    database: Database, quota: dict[str, float], resources: dict[str, float], field: str | None
) -> None:
    make_team(database, "red", **quota)
    spec = JobSpec.model_validate({"batch_size": 60, "resources": resources})
    with pytest.raises(InfeasibleError) as caught, database.unit_of_work() as session:
        jobs.submit(session, spec, actor=Actor("ann", "red"))
    assert caught.value.field == field
    with database.unit_of_work() as session:
        jobs.submit(session, spec, actor=Actor("bob", "blue"))


def test_submit__passes_a_request_of_exactly_the_quota(database: Database) -> None:
    make_team(database, "red", gpus=1, cpus=2, running_jobs=1)
    spec = JobSpec.model_validate({"resources": {"num_workers": 2, "gpus_per_worker": 0.5}})
    with database.unit_of_work() as session:
        assert jobs.submit(session, spec, actor=Actor("ann", "red"))[1]


def test_first_admin_token__of_many_servers_that_start_at_once_one_makes_it(database: Database) -> None:
    def start(_: int) -> str | None:
        with database.unit_of_work() as session:
            return bootstrap.first_admin_token(session)

    with ThreadPoolExecutor(6) as threads:
        made = list(threads.map(start, range(6)))
    assert len([text for text in made if text is not None]) == 1


def test_put_user__of_two_admins_who_demote_each_other_at_once_one_stays(database: Database) -> None:
    for name in ("root", "eve"):
        admin_token(database, name)

    def demote(name: str) -> bool:
        try:
            with database.unit_of_work() as session:
                service.put_user(session, ROOT, name, is_admin=False)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(demote, ("root", "eve"))) == [False, True]
