"""Errors that only the HTTP door raises; those about jobs are `xsam.services.errors`."""

from xsam.services.errors import ServiceError


class NotReadyError(ServiceError):
    """The service can't do its work yet, or not at present."""

    code = "not_ready"


class RateLimitedError(ServiceError):
    """The caller asks too often.

    Args:
        retry_after_s: when the next request will be let through.
    """

    code = "rate_limited"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"too many requests with this token; try again in {retry_after_s:.2f} s")
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type["RateLimitedError"], tuple[float]]:  # type: ignore[override]
        return type(self), (self.retry_after_s,)
