"""What the API takes and shows of teams, members, users, tokens and the audit trail."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, field_validator
from pydantic_core import PydanticCustomError

from xsam.services.schemas import Read
from xsam.services.settings import IdleAfter, IdleGrace, IdleRequeues, IdleThen, KeepDays
from xsam.services.specs.base import PLAIN, Spec
from xsam.services.specs.job import GpuKind
from xsam.services.teams.models import AuditEvent, Membership, SignIn, Team, Token, User
from xsam.services.teams.roles import SYSTEM, Capability, Role

DEFAULT_LIFETIME_S = 90 * 86_400.0
LONGEST_LIFETIME_S = 3650 * 86_400.0
_LARGEST_AMOUNT = 1_000_000


def _not_the_service(name: str) -> str:
    if name == SYSTEM:
        raise PydanticCustomError("reserved", f"Input should not be {SYSTEM}, the name of the service itself")
    return name


# Lower case only, so that no two names differ by their case alone; no slash, so that a name is one part of a URL.
TeamName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=63)]
UserName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._@-]*$", max_length=63), AfterValidator(_not_the_service)
]
TokenLabel = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=100), PLAIN]
Weight = Annotated[float, Field(gt=0, le=1000)]
Amount = Annotated[float, Field(ge=0, le=_LARGEST_AMOUNT)]
Count = Annotated[int, Field(ge=0, le=_LARGEST_AMOUNT)]


class Quota(Spec):
    """What a team may hold at once; null is no limit."""

    gpus: Amount | None = None
    cpus: Amount | None = None
    running_jobs: Count | None = None
    gpus_by_kind: Annotated[dict[GpuKind, Amount], Field(max_length=64)] | None = None
    """GPUs of one kind, as `xsam cluster` shows it, in any case of its letters; kinds that are not named have no limit
    of their own. It is replaced as a whole."""

    @field_validator("gpus_by_kind")
    @classmethod
    def _in_lower_case(cls, given: dict[str, float] | None) -> dict[str, float] | None:
        return None if given is None else {kind.lower(): limit for kind, limit in given.items()}


class Retention(Spec):
    """For how long a team's ended jobs are kept; null is as everywhere in the service."""

    checkpoint_days: KeepDays | None = None
    weights_days: KeepDays | None = None
    log_days: KeepDays | None = None
    metrics_days: KeepDays | None = None
    """Epochs are thinned then."""
    row_days: KeepDays | None = None
    """The jobs themselves."""
    bundle_days: KeepDays | None = None
    environment_days: KeepDays | None = None
    max_bytes: Annotated[int, Field(ge=0, le=2**60)] | None = None
    """Of ended jobs' files; what is more goes, of the jobs that ended first."""


class IdlePolicy(Spec):
    """What is done about a team's running jobs that do not use their GPUs; null is as everywhere in the service."""

    then: IdleThen | None = None
    """nothing; warn; requeue, a while after the warning; end, likewise."""
    after_s: IdleAfter | None = None
    """GPUs that did nothing for so long are idle; where nobody measures them, jobs that reported no progress."""
    grace_s: IdleGrace | None = None
    """Time between the warning and what follows."""
    max_requeues: IdleRequeues | None = None
    """So many times in a row a job goes back to the queue; then it is paused, and a study's trial ended."""


class TeamWrite(Spec):
    """A team as a whole: what is left out has its default."""

    weight: Weight = 1.0
    """Share of a busy cluster that the team is entitled to, relative to the other teams' weights."""
    quota: Quota = Quota()
    retention: Retention | None = None
    """Left out, a team that there is already keeps what it has."""


class TeamPatch(Spec):
    """Changes to a team: what is left out stays as it is."""

    weight: Weight | None = None
    quota: Quota | None = None
    """Only the limits named in it change; null takes a limit away."""
    retention: Retention | None = None
    """Only what it names changes; null is as everywhere in the service."""
    idle: IdlePolicy | None = None
    """Likewise."""


class TeamRead(Read):
    """A team."""

    name: str
    weight: float
    quota: Quota
    retention: Retention
    idle: IdlePolicy
    created_at: datetime
    disabled_at: datetime | None
    """Since when it takes no new jobs and nobody speaks for it; null while it is open."""

    @classmethod
    def of(cls, team: Team) -> Self:
        """Return the document for a row."""
        quota = Quota(
            gpus=team.quota_gpus,
            cpus=team.quota_cpus,
            running_jobs=team.quota_running_jobs,
            gpus_by_kind=team.quota_gpus_by_kind,
        )
        return cls(
            name=team.name,
            weight=team.weight,
            quota=quota,
            retention=Retention.model_validate(team.retention or {}),
            idle=IdlePolicy.model_validate(team.idle or {}),
            created_at=team.created_at,
            disabled_at=team.disabled_at,
        )


class TeamPage(Read):
    """Teams, by name."""

    items: list[TeamRead]


class MemberWrite(Spec):
    """A user's place in a team."""

    role: Role


class MemberRead(Read):
    """A user's place in a team."""

    user: str
    team: str
    role: Role
    created_at: datetime

    @classmethod
    def of(cls, member: Membership) -> Self:
        """Return the document for a row."""
        return cls(user=member.user_name, team=member.team_name, role=Role(member.role), created_at=member.created_at)


class MemberPage(Read):
    """A team's members, by name."""

    items: list[MemberRead]


class UserWrite(Spec):
    """What a user may do beyond their teams."""

    is_admin: bool = False
    """Whether the user sees and changes everything of every team."""


class ServiceAccountWrite(Spec):
    """Where a service account belongs."""

    team: TeamName
    """The one team that it has."""
    role: Role = Role.MEMBER
    """What it may do there."""


class UserRead(Read):
    """A user."""

    name: str
    is_admin: bool
    is_service: bool
    """Whether it is a service account: a program's, without a person."""
    created_at: datetime
    disabled_at: datetime | None
    """Since when no token speaks for the user; null for those who may call."""

    @classmethod
    def of(cls, user: User) -> Self:
        """Return the document for a row."""
        return cls.model_validate(user)


class UserPage(Read):
    """Users, by name."""

    items: list[UserRead]


class WhoAmI(Read):
    """Who the service takes the caller for."""

    user: str
    team: str
    role: Role
    is_admin: bool
    token_id: str | None
    """The token that the caller speaks with; null on a service that asks for none."""
    token_expires_at: datetime | None
    """When it ends by itself; null if it does not."""
    session_id: str | None
    """The browser's session that carries it."""
    capabilities: list[Capability]
    """What the caller may do beyond reading."""


class SessionRead(Read):
    """A browser's session without its secret."""

    id: str
    token_id: str
    user_agent: str | None
    """What the browser calls itself."""
    created_at: datetime
    last_used_at: datetime
    """Exact to a minute; a session ends when it is not used for twelve hours."""
    expires_at: datetime
    """However much it is used."""


class SessionCreated(SessionRead):
    """A session with its secret, which is shown this once."""

    secret: str
    """What the browser's cookie holds."""

    @classmethod
    def with_secret(cls, row: SignIn, secret: str) -> Self:
        """Return the document for a row and its secret."""
        return cls.model_validate({**SessionRead.model_validate(row).model_dump(), "secret": secret})


class SessionsRead(Read):
    """One's open sessions, the one last used first."""

    items: list[SessionRead]


class TokenCreate(Spec):
    """A new token; `{}` is one for oneself."""

    user: UserName | None = None
    """Who it speaks for; by default the caller. Only admins make tokens for others."""
    team: TeamName | None = None
    """The team it speaks for the user in; by default the caller's."""
    label: TokenLabel | None = None
    """A word to tell it from others, such as the machine it will be used on."""
    expires_in_s: Annotated[float, Field(ge=60, le=LONGEST_LIFETIME_S)] | None = DEFAULT_LIFETIME_S
    """Seconds until it ends by itself; null lets it live until it is revoked."""


class TokenRead(Read):
    """A token without its secret."""

    id: str
    label: str | None
    user: str
    team: str
    prefix: str
    """How the token begins."""
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    """Exact to a minute."""

    @classmethod
    def of(cls, token: Token) -> Self:
        """Return the document for a row."""
        return cls.model_validate(_token_fields(token))


class TokenCreated(TokenRead):
    """A token with its secret, which is shown this once."""

    token: str

    @classmethod
    def with_secret(cls, token: Token, text: str) -> Self:
        """Return the document for a row and its secret."""
        return cls.model_validate({**_token_fields(token), "token": text})


class TokenPage(Read):
    """A page of tokens, newest first."""

    items: list[TokenRead]
    next_cursor: str | None
    """Pass it as `cursor` for the next page; null on the last."""


class DeviceCodeWrite(Spec):
    """A program that asks for a token of the person who will confirm it (RFC 8628, 3.1)."""

    label: TokenLabel | None = None
    """What the program calls itself, such as the machine it runs on; the person sees it, and so does the token."""


class DeviceCodeRead(Read):
    """What the program asks with, and what the person confirms (RFC 8628, 3.2)."""

    device_code: str
    """Secret: whoever has it gets the token."""
    user_code: str
    """The person types it at `verification_uri`, or compares it."""
    verification_uri: str
    verification_uri_complete: str
    """The same with the code in it."""
    expires_in: int
    """Seconds in which the person can confirm."""
    interval: int
    """Seconds to wait between two questions for the token."""


class DeviceTokenWrite(Spec):
    """A question for the token (RFC 8628, 3.4)."""

    device_code: Annotated[str, StringConstraints(max_length=200)]
    grant_type: Literal["urn:ietf:params:oauth:grant-type:device_code"] = "urn:ietf:params:oauth:grant-type:device_code"
    """Only programs of other kinds need to send it."""


class DeviceTokenRead(Read):
    """A token of the person who confirmed (RFC 6749, 5.1); its text is shown this once."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - a kind of token
    expires_in: int
    """Seconds until it ends by itself."""


class AuditEventRead(Read):
    """A change of teams, users or tokens."""

    id: int
    at: datetime
    actor: str
    token_id: str | None
    """The token the actor called with."""
    action: str
    team: str | None
    subject: str
    data: dict[str, Any]

    @classmethod
    def of(cls, event: AuditEvent) -> Self:
        """Return the document for a row."""
        return cls.model_validate(event)


class AuditPage(Read):
    """Changes, newest first."""

    items: list[AuditEventRead]
    next_before: int | None
    """Pass it as `before` for the next page; null on the last."""


class DisableWrite(Spec):
    """How a team or a user is disabled."""

    cancel_jobs: bool = False
    """Cancel their jobs and studies that have not ended; otherwise all of them go on, queued ones too."""


class DisabledRead(Read):
    """What a call that disabled a team or a user has ended."""

    num_tokens: int
    num_sessions: int
    num_cancelled: int
    """Jobs and studies that were cancelled, or asked to stop."""
    has_more: bool
    """There are more to cancel: repeat the call."""


def _token_fields(token: Token) -> dict[str, Any]:
    same = ("id", "label", "prefix", "created_by", "created_at", "expires_at", "revoked_at", "last_used_at")
    return {**{name: getattr(token, name) for name in same}, "user": token.user_name, "team": token.team_name}
