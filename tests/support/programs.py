"""Programs that tests need besides Python: found on the PATH, or the test is skipped, or fails where CI wants it."""

import os
import shutil
from pathlib import Path

import pytest

from tests.support.databases import REQUIRE_VARIABLE


def find(name: str, *, package: str) -> Path:
    """Return where a program lies.

    Skips the test where it is missing, or fails it where XSAM_TEST_REQUIRE names the Debian package that has it.
    """
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    reason = f"no {name} on the PATH; Debian's package {package} has it"
    if package in os.environ.get(REQUIRE_VARIABLE, "").split(","):
        pytest.fail(reason)
    pytest.skip(reason)
