"""Teams, users and tokens for tests, made through the same calls as everybody's."""

from collections.abc import Sequence

from sqlalchemy import update

from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.notifications import service as webhooks
from xsam.services.notifications.schemas import WebhookWrite
from xsam.services.secrets import verbs as secrets
from xsam.services.secrets.schemas import SecretWrite
from xsam.services.settings import NotificationSettings
from xsam.services.teams import bootstrap, service, sessions, tokens
from xsam.services.teams.models import Token
from xsam.services.teams.roles import Principal, Role
from xsam.services.teams.schemas import Quota, TeamWrite, TokenCreate

SECRET_KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
"""An operator's key for secrets, good enough for tests."""
ROOT = Principal(user="root", team="default", role=Role.ADMIN, is_admin=True)


def admin_token(database: Database, user: str = "root") -> str:
    """Return a token of an admin of the whole service."""
    with database.unit_of_work() as session:
        return bootstrap.admin_token(session, user, label="test")


def make_team(database: Database, name: str, *, weight: float = 1.0, **quota: float) -> None:
    """Create a team, or replace its weight and quota."""
    with database.unit_of_work() as session:
        wanted = TeamWrite(weight=weight, quota=Quota.model_validate(quota))
        service.put_team(session, ROOT, name, wanted)


def make_member(database: Database, user: str, team: str, role: Role) -> Principal:
    """Take a user into a team and return who they are there; without a token."""
    with database.unit_of_work() as session:
        service.put_member(session, ROOT, team, user, role)
    return Principal(user=user, team=team, role=role)


def make_token(database: Database, user: str, team: str, *, expires_in_s: float | None = None) -> tuple[str, str]:
    """Return the id and the text of a new token for a member."""
    with database.unit_of_work() as session:
        row, text = tokens.create(session, ROOT, TokenCreate(user=user, team=team, expires_in_s=expires_in_s))
        return row.id, text


def make_webhook(
    database: Database, team: str, url: str = "https://hooks.example/x", *, kinds: Sequence[str] = ("job",)
) -> str:
    """Return the id of a new webhook of a team."""
    allowed = NotificationSettings(allowed_hosts=("*",), allow_private_addresses=True)
    with database.unit_of_work() as session:
        wanted = WebhookWrite.model_validate({"url": url, "kinds": kinds})
        return webhooks.add(session, ROOT, team, wanted, allowed).id


def make_secret(
    database: Database,
    team: str,
    name: str = "WANDB_API_KEY",
    value: str = "wandb-0123456789",
    *,
    key: str = SECRET_KEY,
) -> str:
    """Set a secret of a team and return its name."""
    with database.unit_of_work() as session:
        return secrets.put(session, ROOT, team, name, SecretWrite(value=value), keys=(key,)).name


def begin_session(database: Database, token_id: str, *, user_agent: str | None = None) -> tuple[str, str]:
    """Return the id and the secret of a new session of a token."""
    with database.unit_of_work() as session:
        row, secret = sessions.begin(session, tokens.holder(session, token_id), user_agent=user_agent)
        return row.id, secret


def read_token(database: Database, token_id: str) -> Token:
    """Return the token's row as it is now."""
    with database.read() as session:
        return session.get_one(Token, token_id)


def expire(database: Database, token_id: str) -> None:
    """Let a token's time be over."""
    with database.unit_of_work() as session:
        session.execute(update(Token).where(Token.id == token_id).values(expires_at=db_now(-0.001)))
