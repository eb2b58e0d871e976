"""The errors that services raise; the API translates their codes, nothing here knows HTTP."""


class ServiceError(Exception):
    """A request that can't be served, with a stable code for programs and a sentence for people.

    Args:
        message: what is wrong, which value was given, what is allowed.
        field: dotted path of the offending input, where there is one.
    """

    code = "service_error"

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field

    def __reduce__(self) -> tuple[type["ServiceError"], tuple[str, str | None]]:
        return type(self), (self.message, self.field)


class NotFoundError(ServiceError):
    """No such row, or not visible to the caller."""

    code = "not_found"


class UnauthenticatedError(ServiceError):
    """Nobody knows who is calling: no token, or one that is not (or no longer) valid."""

    code = "unauthenticated"


class ForbiddenError(ServiceError):
    """The caller is known, and may not do this."""

    code = "forbidden"


class InvalidRequestError(ServiceError):
    """The request is well formed but asks for something that is not allowed."""

    code = "invalid_request"


class InfeasibleError(ServiceError):
    """The request could never run on the cluster as it is."""

    code = "infeasible"


class ConflictError(ServiceError):
    """The request contradicts what is stored."""

    code = "conflict"


class InvalidTransitionError(ServiceError):
    """The job's state does not allow the change."""

    code = "invalid_transition"


class LeaseLostError(ServiceError):
    """The caller's lease token is no longer the job's: somebody else owns it now, or nobody."""

    code = "lease_lost"


class StorageError(ServiceError):
    """The artifact store can't be read or written."""

    code = "storage_error"
