"""How a rank becomes its team's user: first what needs the service's rights, then nobody here has them any more."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from xsam.services.artifacts.store import JobFolder
from xsam.workers.environments.store import EnvironmentStore
from xsam.workers.isolation import folders, team_user
from xsam.workers.messages import Assignment
from xsam.workers.rank.code import with_code

_OPEN_UMASK = 0o022
"""Unpacked code and installed packages are read by the team; the folders around them say by which."""


def entered(assignment: Assignment) -> Assignment:
    """Become the user that the assignment names, with the job's code and packages in place; without one, do nothing.

    Raises:
        IsolationError: the node can't; nothing of the job may run in this process then.
        TargetError: the code can't be had.
    """
    user, place = assignment.team_user, assignment.place
    if user is None or place is None or assignment.code_root is None:
        return assignment
    with as_team(user, assignment.code_root, assignment.environments) as code_root:
        if place.is_bucket:  # what the runner made is on its own node
            folders.open_job(JobFolder(place.root, assignment.job_id), user, attempt=assignment.attempt)
        own = with_code(replace(assignment, code_root=code_root))
    team_user.require_reach(user, write=[assignment.log_dir, assignment.context.checkpoint_dir])
    return own


@contextmanager
def as_team(user: int | None, code_root: Path, environments: EnvironmentStore | None) -> Iterator[Path]:
    """Let the block put code in place with the service's rights, then become a team's user.

    Args:
        user: of the team; None changes nothing.
        code_root: of the node. The block gets the folder in which to unpack.
        environments: of the node, which the team reads as well.

    Raises:
        IsolationError: the node can't.
    """
    if user is None:
        yield code_root
        return
    os.umask(_OPEN_UMASK)
    team = folders.open_team(code_root, user)
    yield team.code
    if environments is not None and environments.root.exists():
        folders.pass_through(environments.root)
    team_user.become(user, team.home)
    team_user.require_reach(user, read=[Path(sys.prefix), Path(sys.base_prefix), team.code])
