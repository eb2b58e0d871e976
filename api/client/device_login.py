"""The part of the client for programs that sign in: a person confirms them at the page (RFC 8628)."""

import time
from collections.abc import Callable

from xsam.api.client.errors import ApiError
from xsam.api.client.http import Http
from xsam.services.teams.schemas import DeviceCodeRead, DeviceTokenRead

_SLOWER_S = 5.0


class DeviceLoginClient:
    """A sign-in that a person confirms; reached as `Client(...).device_login`. Every call may raise ApiError.

    Args:
        http: the client's connections.
    """

    def __init__(self, http: Http) -> None:
        self._http = http

    def begin(self, label: str | None = None) -> DeviceCodeRead:
        """Return the codes: one to ask with, and the short one that a person confirms at `verification_uri`.

        Args:
            label: what the person is shown, such as the name of this machine.
        """
        return self._http.read(DeviceCodeRead, "POST", "/v1/device/code", json={"label": label})

    def ask(self, device_code: str) -> DeviceTokenRead:
        """Return the token, once; before a person has confirmed, the error's code is `authorization_pending`."""
        return self._http.read(DeviceTokenRead, "POST", "/v1/device/token", json={"device_code": device_code})

    def wait(self, begun: DeviceCodeRead, *, sleep: Callable[[float], None] = time.sleep) -> DeviceTokenRead:
        """Ask as often as the service allows until a person has decided.

        Args:
            begun: what `begin` returned.
            sleep: waits so many seconds.

        Raises:
            ApiError: `access_denied`, they refused; `expired_token`, nobody confirmed in time.
        """
        interval_s = float(begun.interval)
        while True:
            sleep(interval_s)
            try:
                return self.ask(begun.device_code)
            except ApiError as e:
                if e.code == "slow_down":
                    interval_s += _SLOWER_S
                elif e.code != "authorization_pending":
                    raise
