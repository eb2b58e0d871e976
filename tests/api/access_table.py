"""Every route with what each kind of caller gets; a new route must be added here.

The callers: `viewer`, `member` (ann) and `lead` (its admin) of the team red, `stranger`, a member of the team blue, and
`admin`, an admin of the service. The paths name things of the team red. Without a valid token all get 401.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

from tests.support import bundles

BUNDLE = bundles.packed({"train.py": "print('hello')"})
CALLERS = ("stranger", "viewer", "member", "lead", "admin")


@dataclass(frozen=True)
class Access:
    """What each caller gets, in the order of CALLERS."""

    method: str
    path: str
    statuses: tuple[int, int, int, int, int]
    body: Any = None
    content: bytes | None = None
    """Of a body that is no JSON."""
    query: str = ""

    @property
    def placeholders(self) -> Sequence[str]:
        """What the path names."""
        return [name for _, name, _, _ in Formatter().parse(self._template) if name is not None]

    def url(self, names: Mapping[str, str]) -> str:
        """Return the path with names for its placeholders."""
        return self._template.format_map(names)

    @property
    def _template(self) -> str:
        return f"{self.path}{self.query}".replace(":path}", "}")

    @property
    def by_caller(self) -> Mapping[str, int]:
        return dict(zip(CALLERS, self.statuses, strict=True))


_ALL = (200, 200, 200, 200, 200)
_OWN = (404, 200, 200, 200, 200)
"""Reads a thing of the team."""
_CHANGES = (404, 403, 200, 200, 200)
"""Changes a thing of the team."""
_WRITES = (200, 403, 200, 200, 200)
"""Changes the caller's own team's things, named in the body."""
_LEADS = (404, 403, 403, 200, 200)
"""Manages the team."""
_ADMIN = (403, 403, 403, 403, 200)

TABLE = (
    Access("POST", "/v1/jobs", (201, 403, 201, 201, 201), {}),
    Access("GET", "/v1/jobs", _ALL),
    Access("GET", "/v1/jobs:count", _ALL),
    Access("GET", "/v1/jobs:metrics", _OWN, query="?job={job_id}"),
    Access("GET", "/v1/jobs/{job_id}/alpha-map", _OWN),
    Access("GET", "/v1/jobs/{job_id}", _OWN),
    Access("PATCH", "/v1/jobs/{job_id}", _CHANGES, {"priority": 3}),
    Access("POST", "/v1/jobs/{job_id}/cancel", _CHANGES),
    Access("POST", "/v1/jobs/{job_id}/pause", _CHANGES),
    Access("POST", "/v1/jobs/{job_id}/resume", _CHANGES),
    Access("POST", "/v1/jobs/{job_id}/retry", (404, 403, 409, 409, 409)),  # it has not ended
    Access("POST", "/v1/jobs/{job_id}/clone", (404, 403, 201, 201, 201), {}),
    Access("POST", "/v1/jobs:cancel", _WRITES, {"where": {"name": "none"}}),
    Access("POST", "/v1/jobs:pause", _WRITES, {"where": {"name": "none"}}),
    Access("POST", "/v1/jobs:resume", _WRITES, {"where": {"name": "none"}}),
    Access("POST", "/v1/jobs:retry", _WRITES, {"where": {"name": "none"}}),
    Access("POST", "/v1/jobs:update", _WRITES, {"where": {"name": "none"}, "change": {"priority": 1}}),
    Access("POST", "/v1/jobs:preview", _WRITES, {}),
    Access("GET", "/v1/jobs/{job_id}/why", _OWN),
    Access("GET", "/v1/jobs/{job_id}/attempts", _OWN),
    Access("GET", "/v1/changes", _ALL),
    Access("GET", "/v1/queue", _ALL),
    Access("GET", "/metrics", _ALL),
    Access("PUT", "/v1/nodes/{node}/cordon", (403, 403, 403, 403, 404), {}),  # no node has been seen
    Access("DELETE", "/v1/nodes/{node}/cordon", (403, 403, 403, 403, 404)),
    Access("PUT", "/v1/maintenance", _ADMIN, {"reason": "new kernel"}),
    Access("DELETE", "/v1/maintenance", (403, 403, 403, 403, 404)),
    Access("GET", "/v1/retention", _ADMIN),
    Access("POST", "/v1/retention/collect", _ADMIN),
    Access("GET", "/v1/cluster", _ALL),
    Access("GET", "/v1/usage", _ALL),
    Access("GET", "/v1/usage/sums", _ALL),
    Access("GET", "/v1/cluster/occupancy", _ALL),
    Access("GET", "/v1/cluster/samples", _ALL),
    Access("GET", "/v1/status", _ALL),
    Access("GET", "/v1/attention", _ALL),
    Access("GET", "/v1/schemas/job", _ALL),
    Access("GET", "/v1/schemas/study", _ALL),
    Access("GET", "/v1/jobs/{job_id}/metrics", _OWN),
    Access("GET", "/v1/jobs/{job_id}/alpha", _OWN),
    Access("GET", "/v1/jobs/{job_id}/events", _OWN),
    Access("GET", "/v1/jobs/{job_id}/logs", _OWN),
    Access("GET", "/v1/jobs/{job_id}/log-lines", _OWN),
    Access("GET", "/v1/jobs/{job_id}/artifacts", _OWN),
    Access("GET", "/v1/jobs/{job_id}/artifacts/{name:path}", _OWN),
    Access("GET", "/v1/jobs/{job_id}/model-card", _OWN),
    Access("POST", "/v1/studies", (201, 403, 201, 201, 201), {"preset": "rho"}),
    Access("POST", "/v1/studies:preview", (200, 403, 200, 200, 200), {"preset": "rho"}),
    Access("GET", "/v1/studies", _ALL),
    Access("GET", "/v1/studies/{study_id}", _OWN),
    Access("PATCH", "/v1/studies/{study_id}", _CHANGES, {"concurrency": 3}),
    Access("POST", "/v1/studies/{study_id}/pause", _CHANGES),
    Access("POST", "/v1/studies/{study_id}/resume", _CHANGES),
    Access("POST", "/v1/studies/{study_id}/stop", _CHANGES),
    Access("POST", "/v1/studies/{study_id}/cancel", _CHANGES),
    Access("POST", "/v1/studies/{study_id}/retry-failed", _CHANGES, {}),
    Access("POST", "/v1/studies/{study_id}/extend", _CHANGES, {"num_trials": 2}),
    Access("POST", "/v1/studies/{study_id}/promote", (404, 403, 201, 201, 201), {}),
    Access("GET", "/v1/studies/{study_id}/trials", _OWN),
    Access("GET", "/v1/studies/{study_id}/trials/export", _OWN),
    Access("GET", "/v1/studies/{study_id}/importances", _OWN),
    Access("GET", "/v1/studies/{study_id}/plots", _OWN),
    Access("GET", "/v1/studies/{study_id}/map", _OWN),
    Access("GET", "/v1/studies/{study_id}/curves", _OWN),
    Access("GET", "/v1/studies/{study_id}/rungs", _OWN),
    Access("GET", "/v1/lab/figures", _ALL),
    Access("POST", "/v1/lab/runs", (201, 403, 201, 201, 201), {"figure": "1b"}),
    Access("POST", "/v1/lab/runs:preview", _WRITES, {"figure": "3b"}),
    Access("GET", "/v1/lab/runs", _ALL),
    Access("GET", "/v1/lab/runs/{run_id}", _OWN),
    Access("GET", "/v1/lab/runs/{run_id}/table", (404, 404, 404, 404, 404)),  # it has found nothing yet
    Access("GET", "/v1/lab/runs/{run_id}/picture", (404, 404, 404, 404, 404)),
    Access("POST", "/v1/lab/runs/{run_id}/cancel", _CHANGES),
    Access("POST", "/v1/lab/runs/{run_id}/resume", (404, 403, 409, 409, 409)),  # it has not failed
    Access("POST", "/v1/checks", _WRITES, {}),
    Access("GET", "/v1/checks/{check_id}", _OWN),
    Access("POST", "/v1/requirements", _WRITES, {"text": "einops"}),
    Access("GET", "/v1/requirements/{requirements_id}", _OWN),
    Access("GET", "/v1/bundles/{bundle_id}", _OWN),
    Access("PUT", "/v1/bundles/{bundle_id}", _WRITES, content=BUNDLE.packed),
    Access("GET", "/v1/teams", _ALL),
    Access("GET", "/v1/teams/{team}", _OWN),
    Access("PUT", "/v1/teams/{team}", _ADMIN, {"weight": 2}),
    Access("PATCH", "/v1/teams/{team}", _ADMIN, {"quota": {"gpus": 4}}),
    Access("GET", "/v1/teams/{team}/leftovers", _ADMIN),
    Access("POST", "/v1/teams/{team}/disable", _ADMIN, {"cancel_jobs": True}),
    Access("POST", "/v1/teams/{team}/enable", _ADMIN),
    Access("DELETE", "/v1/teams/{team}", (403, 403, 403, 403, 409)),  # its job has not ended
    Access("GET", "/v1/users/{user}/leftovers", _ADMIN),
    Access("POST", "/v1/users/{user}/disable", _ADMIN, {}),
    Access("POST", "/v1/users/{user}/enable", _ADMIN),
    Access("DELETE", "/v1/users/{user}", (403, 403, 403, 403, 204)),
    Access("GET", "/v1/teams/{team}/webhooks", _OWN),
    Access("POST", "/v1/teams/{team}/webhooks", (404, 403, 403, 201, 201), {"url": "https://a.example"}),
    Access("DELETE", "/v1/teams/{team}/webhooks/{webhook_id}", (404, 403, 403, 204, 204)),
    Access("POST", "/v1/teams/{team}/webhooks/{webhook_id}/test", _LEADS),
    Access("GET", "/v1/teams/{team}/webhooks/{webhook_id}/deliveries", _OWN),
    Access("GET", "/v1/teams/{team}/secrets", _OWN),
    Access("PUT", "/v1/teams/{team}/secrets/{secret}", _LEADS, {"value": "wandb-0123456789"}),
    Access("DELETE", "/v1/teams/{team}/secrets/{secret}", (404, 403, 403, 204, 204)),
    Access("GET", "/v1/teams/{team}/members", _OWN),
    Access("PUT", "/v1/teams/{team}/members/{user}", _LEADS, {"role": "viewer"}),
    Access("DELETE", "/v1/teams/{team}/members/{user}", (404, 403, 403, 204, 204)),
    Access("GET", "/v1/whoami", _ALL),
    Access("GET", "/v1/users", _ADMIN),
    Access("PUT", "/v1/users/{user}", _ADMIN, {"is_admin": False}),
    Access("PUT", "/v1/service-accounts/{user}", (404, 403, 403, 409, 409), {"team": "red"}),  # a person has the name
    Access("POST", "/v1/tokens", (201, 403, 201, 201, 201), {}),
    Access("GET", "/v1/tokens", _ALL),
    Access("DELETE", "/v1/tokens/{token_id}", (404, 403, 204, 204, 204)),
    Access("POST", "/v1/sessions", (201, 201, 201, 201, 201)),
    Access("GET", "/v1/sessions", _ALL),
    Access("DELETE", "/v1/sessions", (204, 204, 204, 204, 204)),
    Access("DELETE", "/v1/sessions/{session_id}", (404, 404, 204, 404, 404)),  # it is the member's own
    Access("GET", "/v1/audit", (403, 403, 403, 200, 200)),
    Access("GET", "/v1/optimizers", _ALL),
    Access("GET", "/v1/models", _ALL),
    Access("GET", "/v1/datasets", _ALL),
)

OPEN = {
    ("GET", "/healthz"): 200,
    ("GET", "/readyz"): 503,  # no dispatcher runs
    ("GET", "/openapi.json"): 200,
    ("POST", "/v1/device/code"): 422,  # nothing was sent
    ("POST", "/v1/device/token"): 422,
}
"""Routes that ask nobody who they are."""
PAGES = (
    ("GET", "/home"),
    ("GET", "/jobs"),
    ("GET", "/jobs/rows"),
    ("POST", "/jobs/bulk"),
    ("GET", "/jobs/compare"),
    ("GET", "/jobs/new"),
    ("POST", "/jobs/new"),
    ("GET", "/jobs/{job_id}"),
    ("POST", "/jobs/{job_id}/plane"),
    ("POST", "/jobs/{job_id}/{verb}"),
    ("GET", "/studies"),
    ("GET", "/studies/new"),
    ("POST", "/studies/new"),
    ("GET", "/studies/{study_id}"),
    ("POST", "/studies/{study_id}/{verb}"),
    ("GET", "/lab"),
    ("GET", "/lab/new"),
    ("POST", "/lab/new"),
    ("POST", "/lab/{run_id}/{verb}"),
    ("GET", "/lab/{run_id}"),
    ("GET", "/queue"),
    ("GET", "/cluster"),
    ("POST", "/cluster/cordon"),
    ("POST", "/cluster/uncordon"),
    ("GET", "/usage"),
    ("GET", "/usage.csv"),
    ("GET", "/device"),
    ("POST", "/device"),
    ("POST", "/admin/service-accounts"),
    ("GET", "/admin/teams"),
    ("POST", "/admin/teams"),
    ("GET", "/admin/teams/{team}"),
    ("POST", "/admin/teams/{team}/disable"),
    ("POST", "/admin/teams/{team}/enable"),
    ("POST", "/admin/teams/{team}/delete"),
    ("POST", "/admin/teams/{team}/retention"),
    ("POST", "/admin/teams/{team}/idle"),
    ("POST", "/admin/teams/{team}/webhooks"),
    ("POST", "/admin/teams/{team}/webhooks/{webhook_id}/test"),
    ("POST", "/admin/teams/{team}/webhooks/{webhook_id}/remove"),
    ("POST", "/admin/teams/{team}/secrets"),
    ("POST", "/admin/teams/{team}/secrets/{secret}/delete"),
    ("POST", "/admin/teams/{team}/members"),
    ("POST", "/admin/teams/{team}/members/{user}/remove"),
    ("GET", "/admin/users"),
    ("GET", "/admin/users/{user}"),
    ("POST", "/admin/users/{user}/disable"),
    ("POST", "/admin/users/{user}/enable"),
    ("POST", "/admin/users/{user}/delete"),
    ("GET", "/admin/tokens"),
    ("POST", "/admin/tokens"),
    ("POST", "/admin/tokens/{token_id}/revoke"),
    ("GET", "/admin/audit"),
)
"""What the page serves to those who have signed in; beyond that it reads what REST reads."""

OPEN_PAGES = (
    ("GET", "/"),
    ("GET", "/assets/{digest}/{name:path}"),
    ("GET", "/sign-in"),
    ("POST", "/sign-in"),
    ("GET", "/sign-in/sso"),
    ("GET", "/sign-in/sso/callback"),
    ("POST", "/sign-out"),
)
"""What it serves to anybody: how to sign in and out, and its own files."""
