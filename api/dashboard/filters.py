"""How templates write values: numbers, times, sizes, text of people; more of it stands in `xsam.api.formats`."""

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from xsam.api import formats
from xsam.api.formats import NOTHING

_THOUSAND = 1000
_NEXT_UNIT = 999.5
_SMALL, _HUGE = 1e-3, 1e7
_LARGE = ("", "k", "M", "G", "T")
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SHOWN_BIDI = "\u2426"


def param(value: Any) -> str:
    """Return a parameter's value: numbers with three significant digits."""
    if isinstance(value, bool) or value is None:
        return NOTHING if value is None else str(value).lower()
    if isinstance(value, int):
        return whole(value)
    if not isinstance(value, float):
        return plain(value)
    if not math.isfinite(value):
        return NOTHING
    if value and not _SMALL <= abs(value) < _HUGE:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:,.0f}" if value.is_integer() or abs(value) >= _THOUSAND else f"{value:.3g}"


def whole(value: int | None) -> str:
    """Return a count with its thousands apart."""
    return NOTHING if value is None else f"{value:,}"


def short(value: float | None) -> str:
    """Return a count in short: `41k`."""
    if value is None:
        return NOTHING
    step = 0
    while abs(value) >= _NEXT_UNIT and step < len(_LARGE) - 1:
        value, step = value / _THOUSAND, step + 1
    return f"{value:.{2 if step and abs(value) < 10 else 3}g}{_LARGE[step]}"


def ago(instant: datetime | None) -> str:
    """Return how long ago an instant was, in its largest unit: `3 min`."""
    if instant is None:
        return NOTHING
    return lasting((datetime.now(UTC) - instant).total_seconds())


def lasting(seconds: float | None) -> str:
    """Return a duration in its largest unit."""
    if seconds is None:
        return NOTHING
    left = max(seconds, 0.0)
    for unit_s, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if left >= unit_s:
            return f"{left / unit_s:.0f} {name}"
    return f"{left:.0f} s"


def instant(value: datetime | None) -> str:
    """Return an instant in UTC, to the second."""
    return NOTHING if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def iso(value: datetime) -> str:
    """Return an instant for programs."""
    return value.astimezone(UTC).isoformat()


def plain(value: Any) -> str:
    """Return text of a person, with what would turn its direction shown instead of obeyed."""
    return NOTHING if value is None else _BIDI.sub(_SHOWN_BIDI, str(value))


def query(values: Mapping[str, Any], **changes: Any) -> str:
    """Return a query with changes; None takes a parameter away. Begins with `?`, also when nothing is left."""
    merged = {**values, **changes}
    pairs: list[tuple[str, str]] = []
    for name, value in merged.items():
        many = value if isinstance(value, list | tuple) else [value]
        pairs += [(name, str(one)) for one in many if one not in (None, "")]
    return f"?{urlencode(pairs)}"


FILTERS: Mapping[str, Callable[..., str]] = {
    "ago": ago,
    "duration": formats.duration,
    "instant": instant,
    "iso": iso,
    "lasting": lasting,
    "number": formats.number,
    "param": param,
    "percent": formats.percent,
    "plain": plain,
    "query": query,
    "request": formats.request,
    "gpus_of": formats.gpus_of,
    "short": short,
    "size": formats.size,
    "whole": whole,
}
