"""A page with the charts' modules, under the policy that every page has."""

from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.support.browser import chromium
from xsam.api import dashboard

_STATIC = Path(dashboard.__file__).parent / "static"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "require-trusted-types-for 'script'"
)
_PAGE = b"""<!doctype html><html lang="en"><head><title>charts</title>
<link rel="stylesheet" href="/app.css"><link rel="stylesheet" href="/charts/charts.css">
<link rel="icon" href="data:,"></head><body><figure id="host"></figure></body></html>"""

Evaluate = Callable[..., Any]


class _Files(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path != "/":
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(_PAGE)
        return None

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", _POLICY)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture(scope="package")
def charts_address() -> Iterator[str]:
    """Where the charts' files are served."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(_STATIC))) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="package")
def chart_browser(charts_address: str) -> Iterator[Page]:
    """One page for all tests of the package."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1000, "height": 700})
        page.goto(charts_address)
        yield page


@pytest.fixture
def charts(chart_browser: Page) -> Iterator[Page]:
    """The page with an empty figure `#host`; anything it complains about fails the test."""
    said: list[str] = []
    listen = lambda message: said.append(message.text) if message.type in ("error", "warning") else None  # noqa: E731
    fail = lambda error: said.append(str(error))  # noqa: E731
    chart_browser.on("console", listen)
    chart_browser.on("pageerror", fail)
    chart_browser.evaluate(
        "() => { const f = document.createElement('figure'); f.id = 'host'; document.body.replaceChildren(f) }"
    )
    chart_browser.mouse.move(990, 690)
    yield chart_browser
    chart_browser.remove_listener("console", listen)
    chart_browser.remove_listener("pageerror", fail)
    assert not said


@pytest.fixture
def call(charts: Page) -> Evaluate:
    """`call("scale", "linearTicks", 0, 1)` returns what a module's function returns."""

    def called(module: str, function: str, *args: Any) -> Any:
        script = "async ([module, name, args]) => (await import(`/charts/${module}.js`))[name](...args)"
        return charts.evaluate(script, [module, function, list(args)])

    return called
