"""The demo's three jobs: the same data, network, seed and epochs; each method at its own best radius.

The radii come from `python -m tests.bench.demo_sweep`, whose table stands in the README.
"""

from typing import Any

EPOCHS = 30
LABEL_NOISE = 0.4
SAM_RHO = 0.2
XSAM_RHO = 0.15
XSAM_WORKERS = 2
SHARED: dict[str, Any] = {
    # Without BatchNorm two ranks compute what one does with the whole batch, so the swept run is the one that is shown.
    "model": {"name": "small_cnn", "width": 16, "batch_norm": False},
    "dataset": {"name": "digits", "label_noise": LABEL_NOISE},
    "batch_size": 32,
    "epochs": EPOCHS,
    "checkpoint": {"every_epochs": 5},
}
BASE: dict[str, Any] = {"name": "sgd", "lr": 0.01, "momentum": 0.9}

_OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"variant": "sgd", "base": BASE},
    "SAM": {"variant": "sam", "rho": SAM_RHO, "base": BASE},
    "XSAM": {"variant": "xsam", "rho": XSAM_RHO, "base": BASE},
}


def demo_specs() -> list[dict[str, Any]]:
    """Return the specifications, as `POST /v1/jobs` takes them."""
    return [
        {
            **SHARED,
            "name": method,
            "optimizer": optimizer,
            "seed": 0,
            "resources": {"num_workers": XSAM_WORKERS if method == "XSAM" else 1},
            "labels": {"demo": "label-noise"},
        }
        for method, optimizer in _OPTIMIZERS.items()
    ]
