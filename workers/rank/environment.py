"""Versions and hardware of a rank's process, for the model card."""

import os
import platform
import socket
from importlib import metadata

import torch

_PACKAGES = ("xsam", "torch", "torchvision", "ray", "numpy", "scikit-learn")


def describe_environment() -> dict[str, str]:
    """Return what a result may depend on besides its specification."""
    described = {name: metadata.version(name) for name in _PACKAGES}
    described["python"] = platform.python_version()
    described["platform"] = platform.platform()
    described["host"] = socket.gethostname()
    described["pid"] = str(os.getpid())
    described["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    described["num_threads"] = str(torch.get_num_threads())
    if torch.cuda.is_available():
        described["cuda"] = torch.version.cuda or ""
        described["gpu"] = torch.cuda.get_device_name()
    return described
