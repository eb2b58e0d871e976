"""Errors that only the HTTP door raises; those about jobs are `services.errors`."""

from services.errors import ServiceError


class NotReadyError(ServiceError):
    """The service can't do its work yet, or not at present."""

    code = "not_ready"
