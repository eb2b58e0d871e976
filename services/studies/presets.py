"""Studies that people ask for by name: what a preset fills in where the request says nothing."""

from collections.abc import Mapping
from typing import Any

_RHO = {"type": "log_uniform", "low": 0.01, "high": 0.5}
_TWICE_RHO = {"type": "ratio", "of": "optimizer.rho", "factor": 2.0}
"""The paper's rho_max (arXiv 2603.10048); as a ratio it moves with rho."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # How long should the ascent be?
    "rho": {
        "space": {"optimizer.rho": _RHO, "optimizer.rho_max": _TWICE_RHO},
        "sampler": {"name": "quasi_random"},
        "num_trials": 12,
    },
    # The paper's question: do more ascent steps help, each number at its own best rho, for the same compute?
    "rho-k": {
        "space": {
            "optimizer.rho": _RHO,
            "optimizer.rho_max": _TWICE_RHO,
            "optimizer.ascent_steps": {"type": "choice", "values": [1, 2, 3, 5]},
        },
        "sampler": {"name": "grid", "points": 5},
    },
    # Is XSAM worth its price here?
    "control": {
        "space": {"optimizer.rho": _RHO, "optimizer.rho_max": _TWICE_RHO},
        "sampler": {"name": "quasi_random"},
        "num_trials": 8,
        "control": True,
    },
}


def with_preset(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request with its preset's fields where it has none of its own.

    A base optimizer without rho_max (SAM) drops the preset's ratio: it has no probe radius.
    """
    preset = dict(PRESETS[given["preset"]])
    if "seeds_per_config" in given and "num_trials" not in given and "num_trials" in preset:
        seeds = given["seeds_per_config"]
        preset["num_trials"] *= seeds if isinstance(seeds, int) and 1 <= seeds <= 100 else 1  # checked later
    filled = {**preset, **given}
    if "space" not in given and _variant(given) not in (None, "xsam"):
        filled["space"] = {path: d for path, d in filled["space"].items() if path != "optimizer.rho_max"}
    return filled


def _variant(given: Mapping[str, Any]) -> Any:
    base = given.get("base")
    if not isinstance(base, Mapping):
        return getattr(getattr(base, "optimizer", None), "variant", None)
    optimizer = base.get("optimizer")
    return optimizer.get("variant") if isinstance(optimizer, Mapping) else getattr(optimizer, "variant", None)
