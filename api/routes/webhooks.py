"""Webhooks of a team: told when its jobs and studies end."""

from fastapi import Response, status

from xsam.api.http.dependencies import PrincipalDep, ReadSession, ServiceDep, WriteSession
from xsam.api.http.queries import TeamPath, WebhookId
from xsam.api.http.router import Router
from xsam.services.notifications import service as webhooks
from xsam.services.notifications.schemas import (
    DeliveriesRead,
    DeliveryRead,
    WebhookCreated,
    WebhookRead,
    WebhooksRead,
    WebhookWrite,
)

router = Router("/v1/teams/{team}/webhooks", "teams")


@router.route("GET", "", "List webhooks", refuses=("not_found",))
def list_webhooks(team: TeamPath, session: ReadSession, principal: PrincipalDep) -> WebhooksRead:
    """Return the team's webhooks, without their secrets."""
    return WebhooksRead(items=[WebhookRead.model_validate(row) for row in webhooks.list_all(session, principal, team)])


@router.route("POST", "", "Add a webhook", refuses=("not_found", "conflict"), status_code=status.HTTP_201_CREATED)
def add_webhook(
    team: TeamPath,
    wanted: WebhookWrite,
    session: WriteSession,
    principal: PrincipalDep,
    service: ServiceDep,
    response: Response,
) -> WebhookCreated:
    """Add an address and show its secret, this once; for the team's admins. The operator says which hosts may be told.

    Messages are signed as Standard Webhooks say and tried again for two days; the same `webhook-id` may come twice.
    """
    row = webhooks.add(session, principal, team, wanted, service.settings.notifications)
    response.headers["Cache-Control"] = "no-store"
    return WebhookCreated.of(row)


@router.route(
    "DELETE", "/{webhook_id}", "Remove a webhook", refuses=("not_found",), status_code=status.HTTP_204_NO_CONTENT
)
def remove_webhook(team: TeamPath, webhook_id: WebhookId, session: WriteSession, principal: PrincipalDep) -> None:
    """Send nothing more there, not even what waits; for the team's admins."""
    webhooks.remove(session, principal, team, webhook_id)


@router.route("POST", "/{webhook_id}/test", "Test a webhook", refuses=("not_found",))
def test_webhook(team: TeamPath, webhook_id: WebhookId, session: WriteSession, principal: PrincipalDep) -> DeliveryRead:
    """Have a message sent that tells of nothing; for the team's admins. `deliveries` says whether it has arrived."""
    return DeliveryRead.of(webhooks.test(session, principal, team, webhook_id))


@router.route("GET", "/{webhook_id}/deliveries", "List what was sent", refuses=("not_found",))
def list_deliveries(
    team: TeamPath, webhook_id: WebhookId, session: ReadSession, principal: PrincipalDep
) -> DeliveriesRead:
    """Return the latest messages, newest first, and whether they have arrived; kept for a week."""
    found = webhooks.deliveries(session, principal, team, webhook_id)
    return DeliveriesRead(items=[DeliveryRead.of(row) for row in found])
