"""The demo's three jobs: the same data, network, seed and epochs; each method at its own radius."""

from typing import Any

EPOCHS = 30
LABEL_NOISE = 0.4
SEED = 1
BATCH_SIZE = 64
BASE = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}
SAM_RHO = 0.1
XSAM_RHO = 0.1
XSAM_WORKERS = 2

_OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"variant": "sgd", "base": BASE},
    "SAM": {"variant": "sam", "rho": SAM_RHO, "base": BASE},
    "XSAM": {"variant": "xsam", "rho": XSAM_RHO, "base": BASE},
}


def demo_specs() -> list[dict[str, Any]]:
    """Return the specifications, as `POST /v1/jobs` takes them."""
    return [
        {
            "name": method,
            "model": {"name": "small_cnn"},
            "dataset": {"name": "digits", "label_noise": LABEL_NOISE},
            "optimizer": optimizer,
            "schedule": {"name": "cosine"},
            "epochs": EPOCHS,
            "batch_size": BATCH_SIZE,
            "seed": SEED,
            "resources": {"num_workers": XSAM_WORKERS if method == "XSAM" else 1},
            "labels": {"demo": "label-noise"},
        }
        for method, optimizer in _OPTIMIZERS.items()
    ]
