"""A check of a job's own code in a process of its own."""

import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from xsam.workers.isolation.team_user import IsolationError
from xsam.workers.messages import CheckRequest
from xsam.workers.rank.code import unpacked, use_packages
from xsam.workers.rank.isolation import as_team
from xsam.workers.training.check import Checked, check, scratch_context
from xsam.workers.training.errors import TargetError


def run_check(request: CheckRequest) -> dict[str, Any]:
    """Return the answer to a check as plain values."""
    torch.set_num_threads(1)
    try:
        with as_team(request.team_user, request.code_root, request.environments) as code_root:
            code_dir = _code_dir(request, code_root)
    except (TargetError, IsolationError) as e:
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


def _code_dir(request: CheckRequest, code_root: Path) -> Path | None:
    code = request.spec.code
    if code is None or request.code_file is None:
        return None
    use_packages(request.lock, request.environments)
    code_dir = unpacked(request.place, request.code_file, code_root, code.bundle, code.root)
    sys.path.insert(0, str(code_dir))
    return code_dir
