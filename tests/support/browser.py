"""Chromium for tests: the system's own, offline, with what it says collected."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.support.databases import REQUIRE_VARIABLE

PATIENCE_MS = 60_000
"""Only a hang takes so long: the machine may do other work besides."""
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Open Chromium; skips the test where there is none, or fails it where XSAM_TEST_REQUIRE names browser."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        message = "no Chromium is installed (Debian: apt-get install chromium)"
        if "browser" in os.environ.get(REQUIRE_VARIABLE, ""):
            pytest.fail(message)
        pytest.skip(message)
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        yield browser
        browser.close()
