"""What the API takes and shows of webhooks."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, StringConstraints

from xsam.services.notifications.models import Delivery, Webhook
from xsam.services.schemas import Read
from xsam.services.specs.base import PLAIN, Spec


class WebhookKind(StrEnum):
    """Whose ends are told."""

    JOB = "job"
    """Training jobs; a study's trials are not told."""
    STUDY = "study"


Url = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[\x21-\x7e]+$"), PLAIN]


class WebhookWrite(Spec):
    """A new webhook."""

    url: Url
    kinds: Annotated[list[WebhookKind], Field(min_length=1, max_length=2)] = Field(
        default_factory=lambda: [WebhookKind.JOB, WebhookKind.STUDY]
    )


class WebhookRead(Read):
    """A webhook without its secret."""

    id: str
    team: str
    url: str
    kinds: list[str]
    made_by: str
    created_at: datetime


class WebhookCreated(WebhookRead):
    """A webhook with its secret, which is shown this once."""

    secret: str
    """Signs what is sent, as Standard Webhooks say."""

    @classmethod
    def of(cls, row: Webhook) -> Self:
        """Return the document for a row."""
        return cls.model_validate({**WebhookRead.model_validate(row).model_dump(), "secret": row.secret})


class WebhooksRead(Read):
    """A team's webhooks, oldest first."""

    items: list[WebhookRead]


class DeliveryRead(Read):
    """A message, and whether it has arrived."""

    id: str
    type: str
    """`job.succeeded`, `study.failed`, ..., `job.idle`, `webhook.test`."""
    about: str | None
    """The job or study."""
    created_at: datetime
    delivered_at: datetime | None
    next_at: datetime | None
    """When it is tried next; null where it has arrived or is given up."""
    num_tries: int
    error: str | None
    """What went wrong at the last try."""

    @classmethod
    def of(cls, row: Delivery) -> Self:
        """Return the document for a row."""
        return cls(
            id=row.id,
            type=row.payload["type"],
            about=row.payload["data"].get("id"),
            created_at=row.created_at,
            delivered_at=row.delivered_at,
            next_at=row.next_at,
            num_tries=row.num_tries,
            error=row.error,
        )


class DeliveriesRead(Read):
    """The latest messages to a webhook, newest first."""

    items: list[DeliveryRead]
