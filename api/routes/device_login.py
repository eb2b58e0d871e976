"""Sign-in of programs (RFC 8628): begin, and ask for the token; people confirm at the page's `/device`."""

from fastapi import Request, Response

from xsam.api.http.dependencies import ServiceDep
from xsam.api.http.rate_limit import RateLimitedError
from xsam.api.http.router import Router
from xsam.services.errors import ConflictError
from xsam.services.teams import device_login
from xsam.services.teams.device_login import NotGrantedError
from xsam.services.teams.schemas import DeviceCodeRead, DeviceCodeWrite, DeviceTokenRead, DeviceTokenWrite

PATHS = ("/v1/device/code", "/v1/device/token")
CONFIRM = "/device"
"""Where a person confirms."""

router = Router("/v1/device", "tokens", is_open=True)


@router.route(
    "POST", "/code", "Begin to sign a program in", refuses=("conflict", "rate_limited", "database_unavailable")
)
def begin_device_login(
    wanted: DeviceCodeWrite, request: Request, service: ServiceDep, response: Response
) -> DeviceCodeRead:
    """Return a code to ask for a token with, and a short one that a person confirms at the page."""
    settings = service.settings
    if not settings.api.needs_token or not settings.page.enabled:
        reason = "asks nobody for a token" if not settings.api.needs_token else "has no page where one could confirm"
        raise ConflictError(f"this service {reason}, so no program signs in this way")
    wait_s = service.guesses.take(f"program {_address(request)}")
    if wait_s > 0:
        raise RateLimitedError(wait_s, "too many programs begin to sign in from this address")
    with service.database.unit_of_work() as session:
        codes = device_login.begin(session, label=wanted.label, address=_address(request))
    response.headers["Cache-Control"] = "no-store"
    uri = f"{settings.sign_on.public_url or str(request.base_url).rstrip('/')}{CONFIRM}"
    return DeviceCodeRead(
        device_code=codes.device_code,
        user_code=codes.user_code,
        verification_uri=uri,
        verification_uri_complete=f"{uri}?code={codes.user_code}",
        expires_in=int(device_login.EXPIRES_S),
        interval=int(device_login.INTERVAL_S),
    )


@router.route(
    "POST",
    "/token",
    "Ask for a program's token",
    refuses=(
        "authorization_pending",
        "slow_down",
        "access_denied",
        "expired_token",
        "invalid_grant",
        "rate_limited",
        "database_unavailable",
    ),
)
def ask_for_device_token(
    wanted: DeviceTokenWrite, request: Request, service: ServiceDep, response: Response
) -> DeviceTokenRead:
    """Return the token once a person has confirmed; before that, the problem's code says whether to ask again."""
    with service.database.unit_of_work() as session:
        answer = device_login.ask(session, wanted.device_code)
        now = device_login.now(session)
    if isinstance(answer, NotGrantedError):
        if answer.code == NotGrantedError.code:
            wait_s = service.refusals.take(_address(request))
            if wait_s > 0:
                raise RateLimitedError(wait_s, "too many questions with codes that are none")
        raise answer
    token, text = answer
    response.headers["Cache-Control"] = "no-store"
    left_s = 0.0 if token.expires_at is None else (token.expires_at - now).total_seconds()
    return DeviceTokenRead(access_token=text, expires_in=max(int(left_s), 0))


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
