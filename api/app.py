"""The FastAPI application: routes, error handlers, middleware and what they share."""

import getpass
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from xsam.api.dashboard import routes as dashboard
from xsam.api.dashboard.middleware import ErrorPages
from xsam.api.dashboard.views import sign_in
from xsam.api.http import error_handlers
from xsam.api.http.changes import Hub
from xsam.api.http.compression import Compression
from xsam.api.http.counters import ApiCounters
from xsam.api.http.dependencies import Service, local_user_name
from xsam.api.http.gate import Gate
from xsam.api.http.health import VERSION
from xsam.api.http.middleware import BodyLimit, RequestLog
from xsam.api.http.openid import OpenIdProvider
from xsam.api.http.problems import FieldError, Problem
from xsam.api.http.rate_limit import GUESSES_AT_ONCE, GUESSES_PER_S, OpenStreams, RateLimiter
from xsam.api.routes import (
    artifacts,
    audit,
    bundles,
    catalog,
    changes,
    checks,
    device_login,
    health,
    job_verbs,
    jobs,
    lab,
    leaving,
    monitoring,
    nodes,
    requirements,
    retention,
    scheduling,
    secrets,
    sessions,
    studies,
    study_charts,
    teams,
    tokens,
    users,
    webhooks,
)
from xsam.services.db.session import Database
from xsam.services.settings import Settings

_DESCRIPTION = """
Submit training jobs, follow them, read what they measured.

- Errors are problem documents (RFC 9457, `application/problem+json`) with a stable `code`; `errors` names each field.
- Unknown fields and unknown query parameters are refused, so that a misspelt one is never silently ignored.
- Calls need a token (`Authorization: Bearer TOKEN`) that speaks for one user in one team, and see that team's jobs
  only; a service that runs for one user on loopback needs none. 401: no valid token; 403: the role is too low;
  404: no such thing, or another team's; 429: too many requests, `Retry-After` says when to come back.
- Times are RFC 3339 in UTC. Accuracies are shares in [0, 1]. Fields that end in `_s` are seconds.
- Numbers may come as text (`"1e-3"`), because YAML 1.1 reads `1e-3` as text.
"""

_TAGS = [
    {"name": "jobs", "description": "Submit, read, change; metrics, alpha estimates, events and logs."},
    {"name": "changes", "description": "What changes of jobs, studies and trials, as a stream or asked for."},
    {"name": "scheduling", "description": "The queue, why jobs wait, the cluster, usage."},
    {"name": "studies", "description": "Hyperparameter searches: submit, steer, read trials, compare, promote."},
    {"name": "lab", "description": "The paper's figures, made from the service's own jobs, each with a verdict."},
    {"name": "artifacts", "description": "Weights, checkpoints, logs and the model card of a job."},
    {"name": "bundles", "description": "Code that jobs bring: a folder, named by its content."},
    {"name": "teams", "description": "Teams with their weight and quota, their members, users."},
    {"name": "nodes", "description": "Set machines, or the whole service, apart; what is kept, and forgotten."},
    {
        "name": "tokens",
        "description": "Make, list and revoke tokens; sessions of browsers; sign-in of programs; who changed what.",
    },
    {"name": "catalog", "description": "What a job may name, with the JSON Schema of its options."},
    {"name": "health", "description": "Probes for whoever keeps the service running."},
]

_ROUTES = tuple(
    module.router.routes
    for module in (
        jobs,
        job_verbs,
        scheduling,
        studies,
        study_charts,
        lab,
        artifacts,
        bundles,
        checks,
        requirements,
        teams,
        webhooks,
        secrets,
        users,
        leaving,
        tokens,
        sessions,
        device_login,
        audit,
        catalog,
        changes,
        health,
        monitoring,
        nodes,
        retention,
    )
)


def create_app(settings: Settings, database: Database | None = None) -> FastAPI:
    """Return the application.

    Args:
        settings: what the operator set.
        database: already migrated; by default the one in the settings is opened, and closed with the app.
    """
    opened = database or Database(
        settings.database_url, pool_size=settings.database.pool_size, scheduling=settings.scheduling
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        if database is None:
            opened.dispose()

    app = _Api(
        title="XSAM training service",
        version=VERSION,
        summary="Training jobs with sharpness-aware optimizers on a shared cluster.",
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        lifespan=lifespan,
        separate_input_output_schemas=False,
        # Swagger's and ReDoc's pages load their code from a CDN; this service has to work without internet.
        docs_url=None,
        redoc_url=None,
        # The redirect would name whatever host the request's Host header does.
        redirect_slashes=False,
    )
    closing = threading.Event()
    streams = OpenStreams(settings.api.max_streams_per_token)
    service = Service(
        settings,
        opened,
        local_user_name(_user_name()),
        limiter=RateLimiter(per_s=settings.api.rate_limit_per_s, burst=settings.api.rate_limit_burst),
        refusals=RateLimiter(per_s=settings.api.rate_limit_per_s, burst=settings.api.rate_limit_burst),
        guesses=RateLimiter(per_s=GUESSES_PER_S, burst=GUESSES_AT_ONCE),
        streams=streams,
        changes=Hub(opened, closing),
        counters=ApiCounters(opened, streams),
        openid=None if settings.sign_on.issuer is None else OpenIdProvider(settings.sign_on),
        closing=closing,
    )
    app.state.service = service
    app.state.routes = [route for routes in _ROUTES for route in routes.routes]
    for routes in _ROUTES:
        app.include_router(routes)
    if settings.page.enabled:
        for view in dashboard.VIEWS:
            app.include_router(view.routes)
            app.state.routes += view.routes.routes
    error_handlers.install(app)
    larger = {"/v1/bundles/": settings.code.max_packed_bytes} if settings.allowed_code.takes_bundles else {}
    app.add_middleware(BodyLimit, max_bytes=settings.api.max_body_bytes, larger=larger)
    app.add_middleware(Gate, service=service, open_paths={sign_in.PATH, *device_login.PATHS})
    if settings.page.enabled:
        app.add_middleware(ErrorPages)
    app.add_middleware(Compression)  # around pages of errors, which are made of what came in the clear
    app.add_middleware(RequestLog, counters=service.counters)  # added last, so outermost
    return app


class _Api(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, with the problem documents that handlers (not routes) answer with."""
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            reference = "#/components/schemas/{model}"
            for model in (Problem, FieldError):
                schema = model.model_json_schema(ref_template=reference, mode="serialization")
                schema.pop("$defs", None)
                schemas[model.__name__] = schema
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
        return self.openapi_schema or {}


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user id has no name
        return "local"
