"""Teams and their members: who belongs where, what a team is entitled to and what it may hold."""

from typing import Any, TypeVar, get_args

from fastapi import Response
from pydantic import BaseModel, ValidationError
from sqlalchemy.orm import Session

from xsam.api.dashboard.pages import Page, PageDep, Pages
from xsam.api.dashboard.visitors import Form, FormDep
from xsam.api.http.dependencies import ReadSession, WriteSession
from xsam.api.http.queries import SecretPath, TeamPath, UserPath, WebhookId
from xsam.api.http.validation import field_errors
from xsam.services.errors import InvalidRequestError
from xsam.services.notifications import outbox
from xsam.services.notifications import service as webhooks
from xsam.services.notifications.schemas import DeliveryRead, WebhookCreated, WebhookKind, WebhookWrite
from xsam.services.reports import leftovers, usage
from xsam.services.secrets import service as secrets
from xsam.services.secrets import verbs as secret_verbs
from xsam.services.secrets.schemas import SecretRead, SecretWrite
from xsam.services.settings import IdleThen
from xsam.services.specs.base import Spec
from xsam.services.specs.secrets import SecretName
from xsam.services.teams import service as teams
from xsam.services.teams.roles import Role
from xsam.services.teams.schemas import MemberRead, MemberWrite, TeamPatch, TeamRead, TeamWrite

_QUOTA = ("gpus", "cpus", "running_jobs")
_KEPT = {
    "checkpoint_days": "Checkpoints",
    "weights_days": "Weights",
    "log_days": "Logs",
    "metrics_days": "Every epoch",
    "row_days": "Jobs themselves",
    "bundle_days": "Unused code",
    "environment_days": "Unused locks of packages",
    "max_bytes": "Files at most",
}
"""Fields of `Retention`, as the page calls them."""
_MOST = 200
_Model = TypeVar("_Model", bound=BaseModel)


class _SecretName(Spec):
    name: SecretName


pages = Pages()


@pages.get("/admin/teams")
def show_teams(page: PageDep, session: ReadSession) -> Response:
    """Show one's own team; all teams, to admins of the service."""
    return _list(page, session)


@pages.post("/admin/teams")
def make_team(page: PageDep, session: WriteSession, form: FormDep) -> Response:
    """Make a team, or give it another weight and quota."""
    name = form.one("name")
    teams.put_team(session, page.principal, name, _wanted(form))
    return page.go(f"/admin/teams/{name}")


@pages.get("/admin/teams/{team}")
def show_team(team: TeamPath, page: PageDep, session: ReadSession) -> Response:
    """Show a team's weight, quota and members."""
    return _one(page, session, team)


def _one(page: Page, session: Session, team: str, *, made: WebhookCreated | None = None) -> Response:
    row = TeamRead.of(teams.get_team(session, page.principal, team))
    hooks = webhooks.list_all(session, page.principal, team)
    last = outbox.newest(session, [hook.id for hook in hooks])
    members = [MemberRead.of(one) for one in teams.list_members(session, page.principal, team, limit=_MOST)]
    shares = usage.usage(session).shares
    return page.render(
        "team.html",
        team=row,
        members=members,
        roles=list(Role),
        kept=_KEPT,
        idle_ways=get_args(IdleThen),
        webhooks=[(hook, DeliveryRead.of(last[hook.id]) if hook.id in last else None) for hook in hooks],
        made=made,
        secrets=[SecretRead.model_validate(row) for row in secrets.list_all(session, page.principal, team)],
        keeps_secrets=bool(page.service.settings.secrets.keys),
        share=next((share for share in shares if share.team == team), None),
        has=leftovers.of_team(session, page.principal, team) if page.principal.is_admin else None,
        may_manage=page.principal.is_admin or (page.principal.team == team and page.principal.may(Role.ADMIN)),
    )


@pages.post("/admin/teams/{team}/retention")
def keep(team: TeamPath, page: PageDep, session: WriteSession, form: FormDep) -> Response:
    """Change for how long the team's ended jobs are kept."""
    wanted = _checked(TeamPatch, {"retention": {field: form.one(field) or None for field in _KEPT}})
    teams.patch_team(session, page.principal, team, wanted)
    return page.go(f"/admin/teams/{team}")


@pages.post("/admin/teams/{team}/idle")
def set_idle(team: TeamPath, page: PageDep, session: WriteSession, form: FormDep) -> Response:
    """Change what is done about the team's idle GPUs."""
    given = {
        "then": form.one("then") or None,
        "after_s": form.seconds("after_min"),
        "grace_s": form.seconds("grace_min"),
        "max_requeues": form.one("max_requeues") or None,
    }
    teams.patch_team(session, page.principal, team, _checked(TeamPatch, {"idle": given}))
    return page.go(f"/admin/teams/{team}")


@pages.post("/admin/teams/{team}/webhooks")
def add_webhook(team: TeamPath, page: PageDep, session: WriteSession, form: FormDep) -> Response:
    """Add an address and show its secret, this once."""
    kinds = [form.one("kinds")] if form.one("kinds") else list(WebhookKind)
    wanted = _checked(WebhookWrite, {"url": form.one("url"), "kinds": kinds})
    row = webhooks.add(session, page.principal, team, wanted, page.service.settings.notifications)
    return _one(page, session, team, made=WebhookCreated.of(row))


@pages.post("/admin/teams/{team}/webhooks/{webhook_id}/test")
def test_webhook(
    team: TeamPath, webhook_id: WebhookId, page: PageDep, session: WriteSession, form: FormDep
) -> Response:
    """Have a message sent that tells of nothing."""
    webhooks.test(session, page.principal, team, webhook_id)
    return page.go(f"/admin/teams/{team}")


@pages.post("/admin/teams/{team}/webhooks/{webhook_id}/remove")
def remove_webhook(
    team: TeamPath, webhook_id: WebhookId, page: PageDep, session: WriteSession, form: FormDep
) -> Response:
    """Send nothing more there."""
    webhooks.remove(session, page.principal, team, webhook_id)
    return page.go(f"/admin/teams/{team}")


@pages.post("/admin/teams/{team}/secrets")
def put_secret(team: TeamPath, page: PageDep, session: WriteSession, form: FormDep) -> Response:
    """Set a secret, or replace its value."""
    name = _checked(_SecretName, {"name": form.one("name")}).name
    wanted = _checked(SecretWrite, {"value": form.one("value")})
    secret_verbs.put(session, page.principal, team, name, wanted, keys=page.service.settings.secrets.keys)
    return page.go(f"/admin/teams/{team}")


@pages.post("/admin/teams/{team}/secrets/{secret}/delete")
def delete_secret(team: TeamPath, secret: SecretPath, page: PageDep, session: WriteSession, form: FormDep) -> Response:
    """Delete a secret."""
    secret_verbs.remove(session, page.principal, team, secret)
    return page.go(f"/admin/teams/{team}")


@pages.post("/admin/teams/{team}/members")
def put_member(team: TeamPath, page: PageDep, session: WriteSession, form: FormDep) -> Response:
    """Take a user into the team, or change their role."""
    wanted = _checked(MemberWrite, {"role": form.one("role")})
    user = form.one("user")
    if not user:
        raise InvalidRequestError("user must be given", field="user")
    teams.put_member(session, page.principal, team, user, wanted.role)
    return page.go(f"/admin/teams/{team}")


@pages.post("/admin/teams/{team}/members/{user}/remove")
def remove_member(team: TeamPath, user: UserPath, page: PageDep, session: WriteSession, form: FormDep) -> Response:
    """Take a user out of the team, with the tokens they have in it."""
    teams.remove_member(session, page.principal, team, user)
    return page.go(f"/admin/teams/{team}")


def _list(page: Page, session: Session) -> Response:
    rows = [TeamRead.of(row) for row in teams.list_teams(session, page.principal, limit=_MOST)]
    shares = {share.team: share for share in usage.usage(session).shares}
    return page.render("teams.html", teams=rows, shares=shares)


def _wanted(form: Form) -> TeamWrite:
    quota: dict[str, Any] = {name: form.one(name) or None for name in _QUOTA}
    quota["gpus_by_kind"] = _by_kind(form.one("gpus_by_kind"))
    return _checked(TeamWrite, {"weight": form.one("weight", "1") or "1", "quota": quota})


def _by_kind(text: str) -> dict[str, str] | None:
    """Return what `H100: 8, A100: 16` says; what is no number is refused by the schema."""
    pairs = [part.partition(":") for part in text.split(",") if part.strip()]
    return {kind.strip(): value.strip() for kind, _, value in pairs} or None


def _checked(model: type[_Model], given: dict[str, Any]) -> _Model:
    """Return what a form says as REST would take it.

    Raises:
        InvalidRequestError: a field is not valid; names it.
    """
    try:
        return model.model_validate(given)
    except ValidationError as e:
        first = field_errors(e.errors(), model)[0]
        raise InvalidRequestError(f"{first.field} {first.message}", field=first.field) from e
