"""Secrets of a team: set by its admins, given to its jobs, shown to nobody."""

from fastapi import status

from xsam.api.http.dependencies import PrincipalDep, ReadSession, ServiceDep, WriteSession
from xsam.api.http.queries import SecretPath, TeamPath
from xsam.api.http.router import Router
from xsam.services.secrets import service as secrets
from xsam.services.secrets import verbs
from xsam.services.secrets.schemas import SecretRead, SecretsRead, SecretWrite

router = Router("/v1/teams/{team}/secrets", "teams")


@router.route("GET", "", "List secrets", refuses=("not_found",))
def list_secrets(team: TeamPath, session: ReadSession, principal: PrincipalDep) -> SecretsRead:
    """Return the team's secrets by name, without their values."""
    return SecretsRead(items=[SecretRead.model_validate(row) for row in secrets.list_all(session, principal, team)])


@router.route("PUT", "/{secret}", "Set a secret", refuses=("not_found", "conflict"))
def put_secret(
    team: TeamPath,
    secret: SecretPath,
    wanted: SecretWrite,
    session: WriteSession,
    principal: PrincipalDep,
    service: ServiceDep,
) -> SecretRead:
    """Set or replace a value, for the team's admins; a job names it in `secrets`.

    It is kept encrypted, and no answer returns it. Needs `XSAM_SECRETS__KEY` of the operator.
    """
    row = verbs.put(session, principal, team, secret, wanted, keys=service.settings.secrets.keys)
    return SecretRead.model_validate(row)


@router.route("DELETE", "/{secret}", "Delete a secret", refuses=("not_found",), status_code=status.HTTP_204_NO_CONTENT)
def delete_secret(team: TeamPath, secret: SecretPath, session: WriteSession, principal: PrincipalDep) -> None:
    """Delete a value, for the team's admins; jobs that name it fail when they start."""
    verbs.remove(session, principal, team, secret)
