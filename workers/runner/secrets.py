"""Secrets of an attempt: read for its ranks when it starts, and kept out of how it ended."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from xsam.services.db.session import Database
from xsam.services.errors import ForbiddenError, InvalidRequestError, StorageError
from xsam.services.jobs import service as jobs
from xsam.services.jobs.states import FailureKind
from xsam.services.secrets import service as secrets
from xsam.services.secrets.redaction import Redaction
from xsam.workers.messages import RankResult
from xsam.workers.runner.rank_group import GroupEnding


class NoSecretsError(Exception):
    """An attempt can't have the secrets that its job names.

    Args:
        ending: how it ends, its ranks untouched: the job's failure where its team has no such secret (any more), the
            service's where they can't be read.
    """

    def __init__(self, ending: GroupEnding) -> None:
        super().__init__(ending)
        self.ending = ending


def values_for(database: Database, job_id: str, names: Sequence[str], keys: Sequence[str]) -> Mapping[str, str]:
    """Return the values by name, those of the team whose job it is.

    Args:
        database: the runner's own.
        job_id: the job.
        names: the secrets that it names.
        keys: the operator's.

    Raises:
        NoSecretsError: it can't have all of them.
    """
    if not names:
        return {}
    try:
        with database.read() as session:
            return secrets.values(session, names, team=jobs.get(session, job_id).team, keys=keys)
    except (InvalidRequestError, ForbiddenError, StorageError) as e:
        is_theirs = isinstance(e, InvalidRequestError)
        kind = FailureKind.USER if is_theirs else FailureKind.INFRASTRUCTURE
        failed = RankResult(0, failure_kind=kind, message=e.message)
        raise NoSecretsError(GroupEnding(failed, is_clean=True)) from e


def without(ending: GroupEnding, values: Mapping[str, str]) -> GroupEnding:
    """Return an ending whose texts have none of the values; a rank that died said nothing itself, Ray does."""
    hide = Redaction(values.values())
    if not hide or ending.result is None:
        return ending
    told = replace(ending.result, message=hide(ending.result.message), traceback=hide(ending.result.traceback))
    return replace(ending, result=told)
