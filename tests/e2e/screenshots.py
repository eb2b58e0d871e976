"""The pictures of the page in README, from a real run: `python -m tests.e2e.screenshots` writes them to deploy/docs.

Three users of two teams, eight logical GPUs, jobs of three methods and a study of rho and k that train on this machine.
"""

import argparse
import io
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from playwright.sync_api import Page

from tests.support.browser import chromium
from tests.support.callers import admin_token, make_member, make_team, make_token
from tests.support.served import Served, served, wait_until
from xsam.services.teams.roles import Role

OUTPUT = Path("deploy/docs/page")
NUM_GPUS = 8
OPTIONS = ("--auth", "token", "--num-gpus", str(NUM_GPUS), "--num-cpus", str(NUM_GPUS))
VARIABLES = {"XSAM_TRAINING__DEVICE": "cpu", "XSAM_DISPATCHER__WARM_PROCESSES": "1"}
"""The GPUs are logical: the scheduler counts them, training runs on the CPU."""
SIZE = {"width": 1280, "height": 800}
MOST_BYTES = 150_000
_COLOURS = 128
_NOISY: dict[str, Any] = {
    "dataset": {"name": "digits", "label_noise": 0.4},
    "model": {"name": "small_cnn", "batch_norm": False},
    "batch_size": 32,
    "checkpoint": {"every_epochs": 20},
}
_SGD = {"name": "sgd", "lr": 0.01, "momentum": 0.9}
_ONE = {"num_workers": 1, "gpus_per_worker": 1}


def main() -> None:
    """Run the service, fill it, take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, **VARIABLES}
        with served(Path(folder) / "data", *OPTIONS, is_warmed=False, environment=environment) as service:
            shown = _fill(service)
            _shoot(service, shown, arguments.output)


def _fill(service: Served) -> Mapping[str, str]:
    """Submit jobs and a study, and wait until there is something to see; returns paths by picture."""
    tokens = _people(service)
    http = {user: _http(service, token) for user, token in tokens.items()}
    study = _study(http["ann"])
    optimizers: list[dict[str, Any]] = [
        {"variant": "sgd", "base": _SGD},
        {"variant": "sam", "rho": 0.2, "base": _SGD},
        {"variant": "xsam", "rho": 0.15, "base": _SGD},
        {"variant": "xsam", "rho": 0.3, "base": _SGD},
    ]
    ids = []
    for optimizer in optimizers:
        name = f"noise-{optimizer['variant']}-{optimizer.get('rho', 0):g}".removesuffix("-0")
        spec = {**_NOISY, "name": name, "epochs": 15, "optimizer": optimizer, "labels": {"exp": "noise"}}
        ids.append(_submit(http["ann"], {**spec, "resources": _ONE}))
    _submit(
        http["bob"], {"name": "too-steep", "epochs": 5, "optimizer": {"variant": "sgd", "base": {**_SGD, "lr": 100}}}
    )
    wait_until(lambda: all(_state(http["ann"], job) == "succeeded" for job in ids))
    for i, user in enumerate(("bob", "cat", "cat", "bob", "ann")):
        _submit(
            http[user], {**_NOISY, "name": f"long-{i + 1}", "epochs": 2000, "resources": {**_ONE, "num_workers": 2}}
        )
    wait_until(lambda: _study_of(http["ann"], study)["state"] == "succeeded" or _num_done(http["ann"], study) > 12)
    return {
        "jobs": "/jobs",
        "alpha": f"/jobs/{ids[2]}?tab=alpha",
        "study": f"/studies/{study}",
        "cluster": "/cluster?range=1h",
    }


def _people(service: Served) -> dict[str, str]:
    admin_token(service.database)
    make_team(service.database, "vision", weight=2, gpus=6)
    make_team(service.database, "speech")
    tokens = {}
    for user, team in (("ann", "vision"), ("bob", "vision"), ("cat", "speech")):
        make_member(service.database, user, team, Role.MEMBER)
        tokens[user] = make_token(service.database, user, team)[1]
    return tokens


def _http(service: Served, token: str) -> httpx.Client:
    return httpx.Client(base_url=service.url, headers={"Authorization": f"Bearer {token}"}, timeout=60)


def _submit(http: httpx.Client, spec: Mapping[str, Any]) -> str:
    answer = http.post("/v1/jobs", json=spec)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def _study(http: httpx.Client) -> str:
    base = {**_NOISY, "epochs": 4, "optimizer": {"variant": "xsam", "base": _SGD}}
    spec = {"name": "rho-k", "preset": "rho-k", "control": True, "base": base, "concurrency": 3, "num_trials": 8}
    answer = http.post("/v1/studies", json=spec)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def _state(http: httpx.Client, job: str) -> str:
    return str(http.get(f"/v1/jobs/{job}").json()["state"])


def _study_of(http: httpx.Client, study: str) -> Mapping[str, Any]:
    return dict(http.get(f"/v1/studies/{study}").json())


def _num_done(http: httpx.Client, study: str) -> int:
    return int(_study_of(http, study)["num_by_state"].get("succeeded", 0))


def _shoot(service: Served, shown: Mapping[str, str], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        _, token = make_token(service.database, "ann", "vision")
        for scheme in ("light", "dark"):
            context = browser.new_context(
                base_url=service.url,
                viewport=SIZE,
                color_scheme=scheme,
                device_scale_factor=1,  # type: ignore[arg-type]
            )
            tab = context.new_page()
            tab.goto("/sign-in")
            tab.get_by_label("Token").fill(token)
            tab.keyboard.press("Enter")
            tab.wait_for_url("**/home")  # leaving before would leave without the cookie
            for name, path in shown.items():
                _take(tab, path, output / f"{name}-{scheme}.png")
            context.close()


def _take(tab: Page, path: str, target: Path) -> None:
    tab.goto(path)
    tab.locator("#light[data-state=live]").wait_for()
    time.sleep(2)  # charts come with requests of their own
    picture = Image.open(io.BytesIO(tab.screenshot()))
    picture.convert("RGB").quantize(_COLOURS).save(target, optimize=True)
    size = target.stat().st_size
    assert size <= MOST_BYTES, f"{target} has {size} bytes; allowed are {MOST_BYTES}"
    print(f"{target}  {size:,} bytes")


if __name__ == "__main__":
    main()
