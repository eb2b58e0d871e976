"""What the client raises: the server's refusals, and the connection's failures."""

from collections.abc import Sequence

from xsam.api.http.problems import FieldError, Problem


class ClientError(Exception):
    """A request that did not get the answer it asked for."""


class UnreachableError(ClientError):
    """No connection to the server, or it broke before the answer was complete."""


class UnexpectedAnswerError(ClientError):
    """What answers is not this service, or another release of it."""


class WaitTimeoutError(ClientError):
    """The job has not ended in the time the caller wanted to wait."""


class ApiError(ClientError):
    """The server's answer is a problem document.

    Args:
        problem: the document.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem

    @property
    def code(self) -> str:
        """The stable name of the kind of problem."""
        return self.problem.code

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def fields(self) -> Sequence[FieldError]:
        """What is wrong with which field."""
        return self.problem.errors
