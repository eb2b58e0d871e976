import pytest

from xsam.services.errors import ForbiddenError, NotFoundError, ServiceError
from xsam.services.teams.roles import (
    Principal,
    Role,
    require_cluster_admin,
    require_role,
    require_team_admin,
    require_visible,
)


def _red(role: Role, *, is_admin: bool = False) -> Principal:
    return Principal(user="ann", team="red", role=role, is_admin=is_admin)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("wanted", Role)
def test_role__includes_those_before_it(role: Role, wanted: Role) -> None:
    order = ["viewer", "member", "admin"]
    assert role.includes(wanted) == (order.index(role) >= order.index(wanted))


def test_require_role__names_who_has_which_role_and_what_is_needed() -> None:
    require_role(_red(Role.MEMBER), Role.MEMBER)
    with pytest.raises(ForbiddenError, match="ann is viewer of team red; this needs the role member"):
        require_role(_red(Role.VIEWER), Role.MEMBER)


def test_cluster_admin__may_everything_everywhere() -> None:
    principal = _red(Role.VIEWER, is_admin=True)
    require_cluster_admin(principal)
    require_team_admin(principal, "blue")
    require_role(principal, Role.ADMIN)
    assert principal.visible_team is None


@pytest.mark.parametrize(
    ("role", "team", "error"),
    [
        (Role.ADMIN, "red", None),
        (Role.MEMBER, "red", ForbiddenError),
        (Role.ADMIN, "blue", NotFoundError),
        (Role.VIEWER, "blue", NotFoundError),
    ],
)
def test_require_team_admin__hides_other_teams(role: Role, team: str, error: type[ServiceError] | None) -> None:
    if error is None:
        require_team_admin(_red(role), team)
        return
    with pytest.raises(error):
        require_team_admin(_red(role), team)


def test_team_admin__is_no_cluster_admin() -> None:
    with pytest.raises(ForbiddenError):
        require_cluster_admin(_red(Role.ADMIN))


def test_require_visible__says_of_a_hidden_team_what_it_says_of_none() -> None:
    with pytest.raises(NotFoundError, match=r"^no team blue$"):
        require_visible(_red(Role.ADMIN), "blue")
