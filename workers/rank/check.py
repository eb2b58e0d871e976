"""A check of a job's own code in a process of its own."""

import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from xsam.workers.messages import CheckRequest
from xsam.workers.rank.code import unpacked, use_packages
from xsam.workers.training.check import Checked, check, scratch_context
from xsam.workers.training.errors import TargetError


def run_check(request: CheckRequest) -> dict[str, Any]:
    """Return the answer to a check as plain values."""
    torch.set_num_threads(1)
    code_dir: Path | None = None
    code = request.spec.code
    try:
        if code is not None and request.code_file is not None:
            use_packages(request.lock, request.environments)
            code_dir = unpacked(request.place, request.code_file, request.code_root, code.bundle, code.root)
            sys.path.insert(0, str(code_dir))
    except TargetError as e:
        return asdict(Checked(error=str(e)))
    with tempfile.TemporaryDirectory(prefix="xsam-check-") as folder:
        context = scratch_context(
            request.dataset_root,
            code_dir,
            Path(folder),
            allowed_packages=request.allowed_packages,
            model_root=request.model_root,
        )
        return asdict(check(request.spec, context))
