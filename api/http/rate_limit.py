"""How often a caller may ask: a token bucket per caller, in this process's memory."""

import threading
import time
from collections import Counter
from collections.abc import Callable

from xsam.services.errors import ServiceError

GUESSES_AT_ONCE = 10
GUESSES_PER_S = 0.1
"""Of codes that people type, and of new programs from one address."""
_MAX_BUCKETS = 10_000
_STREAM_PAUSE_S = 5.0


class RateLimitedError(ServiceError):
    """The caller asks too often.

    Args:
        retry_after_s: when the next request will be let through.
        what: there is too much of.
    """

    code = "rate_limited"

    def __init__(self, retry_after_s: float, what: str = "too many requests with this token") -> None:
        super().__init__(f"{what}; try again in {retry_after_s:.2f} s")
        self.retry_after_s = retry_after_s
        self._what = what

    def __reduce__(self) -> tuple[type["RateLimitedError"], tuple[float, str]]:  # type: ignore[override]
        return type(self), (self.retry_after_s, self._what)


class RateLimiter:
    """Lets each caller make `burst` requests at once and `per_s` a second in the long run. Safe between threads.

    Each API process counts for itself, so several of them together let through a multiple of it: the limit protects a
    process, it is not accounting.

    Args:
        per_s: requests a second that refill a bucket.
        burst: requests that a full bucket holds.
        clock: seconds that only grow.
    """

    def __init__(self, *, per_s: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}
        """What each held, and when that was."""

    def take(self, caller: str) -> float:
        """Count a request and return 0; where the bucket is empty, return the seconds until it no longer is."""
        with self._lock:
            now_s = self._clock()
            left, at_s = self._buckets.get(caller, (float(self._burst), now_s))
            left = min(left + (now_s - at_s) * self._per_s, float(self._burst))
            if left < 1:
                return (1 - left) / self._per_s
            self._buckets[caller] = (left - 1, now_s)
            if len(self._buckets) > _MAX_BUCKETS:
                self._forget_full(now_s)
            return 0.0

    def wait_s(self, caller: str) -> float:
        """Return for how many seconds `take` would refuse the caller, without counting anything."""
        with self._lock:
            left, at_s = self._buckets.get(caller, (float(self._burst), 0.0))
            left = min(left + (self._clock() - at_s) * self._per_s, float(self._burst))
            return max(0.0, (1 - left) / self._per_s)

    def _forget_full(self, now_s: float) -> None:
        full_after_s = self._burst / self._per_s
        self._buckets = {one: kept for one, kept in self._buckets.items() if now_s - kept[1] < full_after_s}


class OpenStreams:
    """Counts the answers that each caller keeps open.

    Args:
        most: that one caller may have.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._open: Counter[str | None] = Counter()

    @property
    def num_open(self) -> int:
        """All of them, of all callers."""
        with self._lock:
            return self._open.total()

    def take(self, caller: str | None) -> None:
        """Count one more; None stands for the user of a service without tokens, who is not limited.

        Raises:
            RateLimitedError: the caller has all it may have.
        """
        with self._lock:
            if caller is not None and self._open[caller] >= self._most:
                raise RateLimitedError(_STREAM_PAUSE_S, f"{self._most} streams of this token are open already")
            self._open[caller] += 1

    def give_back(self, caller: str | None) -> None:
        """Count one less."""
        with self._lock:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]
