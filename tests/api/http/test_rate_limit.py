from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.api.token_service import bearer, make_callers
from xsam.api.client import Client
from xsam.api.http import rate_limit
from xsam.api.http.rate_limit import RateLimiter
from xsam.services.db.session import Database
from xsam.services.settings import ApiSettings, Settings


class _Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_bucket__lets_a_burst_through_and_then_its_rate() -> None:
    clock = _Clock()
    limiter = RateLimiter(per_s=2, burst=3, clock=clock)
    assert [limiter.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    clock.now_s = 0.4
    assert limiter.take("a") == pytest.approx(0.1)
    clock.now_s = 0.5
    assert limiter.take("a") == 0
    clock.now_s = 1000  # a bucket never holds more than its burst
    assert [limiter.take("a") > 0 for _ in range(4)] == [False, False, False, True]


def test_bucket__is_each_callers_own() -> None:
    limiter = RateLimiter(per_s=1, burst=1, clock=_Clock())
    assert limiter.take("a") == 0
    assert limiter.take("b") == 0
    assert limiter.take("a") > 0


def test_bucket__counts_exactly_between_threads() -> None:
    limiter = RateLimiter(per_s=1, burst=500, clock=_Clock())
    with ThreadPoolExecutor(8) as threads:
        waits = list(threads.map(lambda _: limiter.take("a"), range(2000)))
    assert waits.count(0) == 500


def test_buckets__that_are_full_again_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "_MAX_BUCKETS", 10)
    clock = _Clock()
    limiter = RateLimiter(per_s=1, burst=5, clock=clock)
    for number in range(10):
        limiter.take(f"old-{number}")
    clock.now_s = 4.9  # the old ones lack a request still
    limiter.take("new")
    assert len(limiter._buckets) == 11
    clock.now_s = 5.1
    limiter.take("newer")
    assert set(limiter._buckets) == {"new", "newer"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"api": ApiSettings(auth="token", rate_limit_per_s=0.5, rate_limit_burst=3)})


def test_service__answers_429_and_when_to_come_back(http: httpx.Client, database: Database) -> None:
    callers = make_callers(database)
    member = callers.headers("member")
    assert [http.get("/v1/whoami", headers=member).status_code for _ in range(3)] == [200, 200, 200]
    response = http.get("/v1/whoami", headers=member)
    assert (response.status_code, response.json()["code"]) == (429, "rate_limited")
    assert 1 <= int(response.headers["retry-after"]) <= 2
    assert http.get("/v1/whoami", headers=callers.headers("viewer")).status_code == 200
    assert http.get("/healthz").status_code == 200


def test_service__counts_refused_requests_too(http: httpx.Client, database: Database) -> None:
    viewer = make_callers(database).headers("viewer")
    statuses = [http.post("/v1/jobs", json={}, headers=viewer).status_code for _ in range(4)]
    assert statuses == [403, 403, 403, 429]


def test_client__waits_as_long_as_it_is_told(url: str, database: Database) -> None:
    token = make_callers(database).valid["member"]
    with Client(url, token=token) as client, httpx.Client(base_url=url, headers=bearer(token)) as http:
        while http.get("/v1/whoami").status_code == 200:
            pass
        assert client.whoami().user == "ann"
