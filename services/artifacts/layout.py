"""Where things lie in the artifact store: one folder per job below the root, shared by all nodes."""

import re
from dataclasses import dataclass
from pathlib import Path

from xsam.services.errors import StorageError

_JOB_ID = re.compile(r"[a-z0-9]{1,32}")


@dataclass(frozen=True, slots=True)
class JobFolder:
    """The folder of one job. Building it touches no file.

    Args:
        root: the artifact root.
        job_id: checked, so that no id can lead out of the root.

    Raises:
        StorageError: the id is not one of ours.
    """

    root: Path
    job_id: str

    def __post_init__(self) -> None:
        if not _JOB_ID.fullmatch(self.job_id):
            raise StorageError(f"job id is {self.job_id!r}; allowed are lower-case letters and digits")

    @property
    def path(self) -> Path:
        """The job's own folder."""
        return self.root / "jobs" / self.job_id

    @property
    def checkpoints(self) -> Path:
        """Checkpoints of all attempts: a later attempt goes on from an earlier one's."""
        return self.path / "checkpoints"

    def attempt(self, number: int) -> Path:
        """Folder of one attempt."""
        return self.path / "attempts" / str(number)

    def logs(self, attempt: int) -> Path:
        """Folder with one log file per rank."""
        return self.attempt(attempt) / "logs"
