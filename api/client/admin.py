"""The part of the client for those who look after teams, users and tokens."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xsam.api.client.http import Http
from xsam.services.cluster.schemas import CordonRead
from xsam.services.notifications.schemas import (
    DeliveriesRead,
    DeliveryRead,
    WebhookCreated,
    WebhookRead,
    WebhooksRead,
)
from xsam.services.reports.leftovers import LeftoversRead
from xsam.services.retention.schemas import CollectedRead, RetentionRead
from xsam.services.secrets.schemas import SecretRead, SecretsRead
from xsam.services.teams.roles import Role
from xsam.services.teams.schemas import (
    DEFAULT_LIFETIME_S,
    AuditEventRead,
    AuditPage,
    DisabledRead,
    MemberPage,
    MemberRead,
    SessionCreated,
    SessionRead,
    SessionsRead,
    TeamPage,
    TeamRead,
    TokenCreated,
    TokenPage,
    TokenRead,
    UserPage,
    UserRead,
)


class AdminClient:
    """Teams, users and tokens; reached as `Client(...).admin`. Every call may raise ApiError.

    Args:
        http: the client's connections.
    """

    def __init__(self, http: Http) -> None:
        self._http = http

    def teams(self) -> Iterator[TeamRead]:
        """Return the teams one may see, by name."""
        return self._http.pages(TeamPage, "/v1/teams", after="name")

    def team(self, name: str) -> TeamRead:
        """Return a team."""
        return self._http.read(TeamRead, "GET", f"/v1/teams/{name}")

    def create_team(self, name: str, *, weight: float = 1.0, quota: Mapping[str, Any] | None = None) -> TeamRead:
        """Create a team, or replace its weight and quota."""
        document = {"weight": weight, "quota": dict(quota or {})}
        return self._http.read(TeamRead, "PUT", f"/v1/teams/{name}", json=document)

    def change_team(
        self,
        name: str,
        *,
        weight: float | None = None,
        quota: Mapping[str, Any] | None = None,
        retention: Mapping[str, float | None] | None = None,
        idle: Mapping[str, Any] | None = None,
    ) -> TeamRead:
        """Change a team's weight, or what `quota`, `retention` or `idle` name; None takes a limit of its own away."""
        document: dict[str, Any] = {} if weight is None else {"weight": weight}
        if quota is not None:
            document["quota"] = dict(quota)
        if retention is not None:
            document["retention"] = dict(retention)
        if idle is not None:
            document["idle"] = dict(idle)
        return self._http.read(TeamRead, "PATCH", f"/v1/teams/{name}", json=document)

    def members(self, team: str) -> Iterator[MemberRead]:
        """Return a team's members, by name."""
        return self._http.pages(MemberPage, f"/v1/teams/{team}/members", after="user")

    def put_member(self, team: str, user: str, role: Role) -> MemberRead:
        """Take a user into a team, or change their role."""
        path = f"/v1/teams/{team}/members/{user}"
        return self._http.read(MemberRead, "PUT", path, json={"role": str(role)})

    def remove_member(self, team: str, user: str) -> None:
        """Take a user out of a team and revoke their tokens in it."""
        self._http.send("DELETE", f"/v1/teams/{team}/members/{user}")

    def users(self) -> Iterator[UserRead]:
        """Return all users, by name."""
        return self._http.pages(UserPage, "/v1/users", after="name")

    def put_user(self, name: str, *, is_admin: bool) -> UserRead:
        """Create a user, or change whether they are an admin of the service."""
        return self._http.read(UserRead, "PUT", f"/v1/users/{name}", json={"is_admin": is_admin})

    def put_service_account(self, name: str, team: str, role: Role) -> UserRead:
        """Create a program's user in a team, or change its role there."""
        document = {"team": team, "role": str(role)}
        return self._http.read(UserRead, "PUT", f"/v1/service-accounts/{name}", json=document)

    def team_leftovers(self, name: str) -> LeftoversRead:
        """Return what a team has: what ends when it is disabled, and what stays."""
        return self._http.read(LeftoversRead, "GET", f"/v1/teams/{name}/leftovers")

    def disable_team(self, name: str, *, cancel_jobs: bool = False) -> DisabledRead:
        """End a team's tokens and sessions and refuse it new jobs; those it has go on, or are cancelled."""
        document = {"cancel_jobs": cancel_jobs}
        return self._http.read(DisabledRead, "POST", f"/v1/teams/{name}/disable", json=document)

    def enable_team(self, name: str) -> TeamRead:
        """Let a disabled or deleted team take jobs again; its tokens stay revoked."""
        return self._http.read(TeamRead, "POST", f"/v1/teams/{name}/enable")

    def delete_team(self, name: str) -> None:
        """Disable a team for good; refused while it has jobs that have not ended."""
        self._http.send("DELETE", f"/v1/teams/{name}")

    def user_leftovers(self, name: str) -> LeftoversRead:
        """Return what a user has in all teams: what ends when they are disabled, and what stays."""
        return self._http.read(LeftoversRead, "GET", f"/v1/users/{name}/leftovers")

    def disable_user(self, name: str, *, cancel_jobs: bool = False) -> DisabledRead:
        """End a user's tokens and sessions in all teams; their jobs go on, or are cancelled."""
        document = {"cancel_jobs": cancel_jobs}
        return self._http.read(DisabledRead, "POST", f"/v1/users/{name}/disable", json=document)

    def enable_user(self, name: str) -> UserRead:
        """Let a disabled or deleted user have tokens again."""
        return self._http.read(UserRead, "POST", f"/v1/users/{name}/enable")

    def delete_user(self, name: str) -> None:
        """Disable a user for good; refused while they have jobs that have not ended."""
        self._http.send("DELETE", f"/v1/users/{name}")

    def cordon(self, node: str, *, reason: str | None = None, drain_within_s: float | None = None) -> CordonRead:
        """Let a node take no new jobs; with `drain_within_s`, those that still run there then move."""
        document = {"reason": reason, "drain_within_s": drain_within_s}
        return self._http.read(CordonRead, "PUT", f"/v1/nodes/{node}/cordon", json=document)

    def uncordon(self, node: str) -> None:
        """Let a node take jobs again."""
        self._http.send("DELETE", f"/v1/nodes/{node}/cordon")

    def begin_maintenance(self, *, reason: str | None = None, drain_within_s: float | None = None) -> CordonRead:
        """Let nothing new start anywhere; with `drain_within_s`, running jobs then go back to the queue."""
        document = {"reason": reason, "drain_within_s": drain_within_s}
        return self._http.read(CordonRead, "PUT", "/v1/maintenance", json=document)

    def end_maintenance(self) -> None:
        """Let jobs start again."""
        self._http.send("DELETE", "/v1/maintenance")

    def webhooks(self, team: str) -> Sequence[WebhookRead]:
        """Return a team's webhooks, oldest first."""
        return self._http.read(WebhooksRead, "GET", f"/v1/teams/{team}/webhooks").items

    def add_webhook(self, team: str, url: str, *, kinds: Sequence[str] = ("job", "study")) -> WebhookCreated:
        """Tell an address when the team's jobs and studies end; the answer has the secret, this once."""
        document = {"url": url, "kinds": list(kinds)}
        return self._http.read(WebhookCreated, "POST", f"/v1/teams/{team}/webhooks", json=document)

    def remove_webhook(self, team: str, webhook_id: str) -> None:
        """Send nothing more there."""
        self._http.send("DELETE", f"/v1/teams/{team}/webhooks/{webhook_id}")

    def test_webhook(self, team: str, webhook_id: str) -> DeliveryRead:
        """Have a message sent that tells of nothing."""
        return self._http.read(DeliveryRead, "POST", f"/v1/teams/{team}/webhooks/{webhook_id}/test")

    def deliveries(self, team: str, webhook_id: str) -> Sequence[DeliveryRead]:
        """Return the latest messages to a webhook, newest first."""
        return self._http.read(DeliveriesRead, "GET", f"/v1/teams/{team}/webhooks/{webhook_id}/deliveries").items

    def secrets(self, team: str) -> Sequence[SecretRead]:
        """Return a team's secrets by name; nothing returns their values."""
        return self._http.read(SecretsRead, "GET", f"/v1/teams/{team}/secrets").items

    def put_secret(self, team: str, name: str, value: str) -> SecretRead:
        """Set or replace a value that the team's jobs get as an environment variable of this name."""
        return self._http.read(SecretRead, "PUT", f"/v1/teams/{team}/secrets/{name}", json={"value": value})

    def delete_secret(self, team: str, name: str) -> None:
        """Delete a value; jobs that name it fail when they start."""
        self._http.send("DELETE", f"/v1/teams/{team}/secrets/{name}")

    def preview_retention(self) -> RetentionRead:
        """Return what of ended jobs is kept long enough and would go."""
        return self._http.read(RetentionRead, "GET", "/v1/retention")

    def collect_retention(self) -> CollectedRead:
        """Let some of it go now; repeat the call while there is more."""
        return self._http.read(CollectedRead, "POST", "/v1/retention/collect")

    def create_token(
        self,
        *,
        user: str | None = None,
        team: str | None = None,
        label: str | None = None,
        expires_in_s: float | None = DEFAULT_LIFETIME_S,
    ) -> TokenCreated:
        """Make a token; its text is in the answer and can't be read again.

        Where the answer was lost and the request is sent again, the first token stays behind; nobody knows its text.

        Args:
            user: who it speaks for; by default the caller.
            team: the team it speaks for the user in; by default the caller's.
            label: a word to tell it from others.
            expires_in_s: seconds until it ends by itself; None lets it live until it is revoked.
        """
        document: dict[str, Any] = {"user": user, "team": team, "label": label}
        if expires_in_s != DEFAULT_LIFETIME_S:  # left out, the server shortens it to what the caller may give
            document["expires_in_s"] = expires_in_s
        return self._http.read(TokenCreated, "POST", "/v1/tokens", json=document)

    def tokens(self) -> Iterator[TokenRead]:
        """Return the tokens one may manage, newest first."""
        return self._http.pages(TokenPage, "/v1/tokens")

    def revoke_token(self, token_id: str) -> None:
        """End a token now."""
        self._http.send("DELETE", f"/v1/tokens/{token_id}")

    def begin_session(self) -> SessionCreated:
        """Begin a browser's session with the client's token; its secret is in the answer and can't be read again."""
        return self._http.read(SessionCreated, "POST", "/v1/sessions")

    def sessions(self) -> Sequence[SessionRead]:
        """Return one's own open sessions, the one last used first."""
        return self._http.read(SessionsRead, "GET", "/v1/sessions").items

    def end_session(self, session_id: str) -> None:
        """End one of one's own sessions."""
        self._http.send("DELETE", f"/v1/sessions/{session_id}")

    def end_sessions(self) -> None:
        """Sign out everywhere."""
        self._http.send("DELETE", "/v1/sessions")

    def audit(self, *, limit: int = 100) -> Sequence[AuditEventRead]:
        """Return the latest changes of teams, users and tokens, newest first, at most 200."""
        return self._http.read(AuditPage, "GET", "/v1/audit", params={"limit": limit}).items
