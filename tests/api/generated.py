"""Requests that Schemathesis makes up from the OpenAPI document; `make contract` has ten times as many made."""

import os

from hypothesis import HealthCheck, settings
from schemathesis import APIOperation

TIMES_VARIABLE = "XSAM_TEST_EXAMPLES_TIMES"


def few(number: int) -> settings:
    """Return Hypothesis' settings for so many requests of a route, the same ones in every run."""
    return settings(
        max_examples=number * int(os.environ.get(TIMES_VARIABLE, "1")),
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def can_be_wrong(operation: APIOperation) -> bool:
    """Return whether there is anything to get wrong in a request."""
    return bool(list(operation.iter_parameters()) or operation.body)
