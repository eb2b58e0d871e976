"""Teams and users that leave: what they have, said before they are disabled or deleted."""

from collections.abc import Callable

from fastapi import Response
from pydantic import TypeAdapter, ValidationError

from xsam.api.dashboard.pages import Page, PageDep, Pages
from xsam.api.dashboard.visitors import Form, FormDep
from xsam.api.http.dependencies import ReadSession, WriteSession
from xsam.api.http.queries import TeamPath, UserPath
from xsam.api.http.validation import field_errors
from xsam.services import leaving
from xsam.services.errors import InvalidRequestError
from xsam.services.reports import leftovers
from xsam.services.teams import service as teams
from xsam.services.teams.roles import Role
from xsam.services.teams.schemas import DisabledRead, DisableWrite, ServiceAccountWrite, UserName, UserRead

_MOST = 200
_NAMES: TypeAdapter[str] = TypeAdapter(UserName)

pages = Pages()


@pages.get("/admin/users")
def show_users(page: PageDep, session: ReadSession) -> Response:
    """Show the users of the service, to its admins."""
    found = teams.list_users(session, page.principal, limit=_MOST)
    return page.render("users.html", users=[UserRead.of(row) for row in found], roles=list(Role))


@pages.post("/admin/service-accounts")
def make_service_account(page: PageDep, session: WriteSession, form: FormDep) -> Response:
    """Create a program's user in a team, or change its role there."""
    try:
        name = _NAMES.validate_python(form.one("name"))
        wanted = ServiceAccountWrite.model_validate({"team": form.one("team"), "role": form.one("role")})
    except ValidationError as e:
        first = field_errors(e.errors(), ServiceAccountWrite)[0]
        field = "name" if first.field == "body" else first.field
        raise InvalidRequestError(f"{field} {first.message}", field=field) from e
    teams.put_service_account(session, page.principal, name, wanted)
    return page.go("/admin/users")


@pages.get("/admin/users/{user}")
def show_user(user: UserPath, page: PageDep, session: ReadSession) -> Response:
    """Show what a user has and would leave behind, also of one who was deleted."""
    return page.render("user.html", has=leftovers.of_user(session, page.principal, user))


@pages.post("/admin/users/{user}/disable")
def disable_user(user: UserPath, page: PageDep, form: FormDep) -> Response:
    """End a user's tokens and sessions, and their jobs where that is wanted."""
    _disable(page, form, leaving.disable_user, user)
    return page.go(f"/admin/users/{user}")


@pages.post("/admin/users/{user}/enable")
def enable_user(user: UserPath, page: PageDep, session: WriteSession, form: FormDep) -> Response:
    """Let a user have tokens again."""
    leaving.enable_user(session, page.principal, user)
    return page.go(f"/admin/users/{user}")


@pages.post("/admin/users/{user}/delete")
def delete_user(user: UserPath, page: PageDep, session: WriteSession, form: FormDep) -> Response:
    """Take a user out of every team and list."""
    leaving.delete_user(session, page.principal, user)
    return page.go("/admin/users")


@pages.post("/admin/teams/{team}/disable")
def disable_team(team: TeamPath, page: PageDep, form: FormDep) -> Response:
    """End a team's tokens and sessions, refuse it new jobs, and end those it has where that is wanted."""
    _disable(page, form, leaving.disable_team, team)
    return page.go(f"/admin/teams/{team}")


@pages.post("/admin/teams/{team}/enable")
def enable_team(team: TeamPath, page: PageDep, session: WriteSession, form: FormDep) -> Response:
    """Let a team take jobs again."""
    leaving.enable_team(session, page.principal, team)
    return page.go(f"/admin/teams/{team}")


@pages.post("/admin/teams/{team}/delete")
def delete_team(team: TeamPath, page: PageDep, session: WriteSession, form: FormDep) -> Response:
    """Take a team out of every list."""
    leaving.delete_team(session, page.principal, team)
    return page.go("/admin/teams")


def _disable(page: Page, form: Form, disable: Callable[..., DisabledRead], name: str) -> None:
    """Disable, and repeat it in transactions of their own until no job is left to cancel."""
    wanted = DisableWrite(cancel_jobs=form.one("cancel_jobs") == "yes")
    has_more = True
    while has_more:
        with page.service.database.unit_of_work() as session:
            has_more = disable(session, page.principal, name, wanted).has_more
