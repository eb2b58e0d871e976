"""What the API shows of bundles."""

from datetime import datetime

from xsam.services.schemas import Read


class BundleRead(Read):
    """A team's code, named by its content."""

    id: str
    packed_bytes: int
    unpacked_bytes: int
    num_files: int
    commit: str | None
    """Of git, where the folder was in a repository."""
    is_dirty: bool
    """Whether files differed from the commit."""
    made_by: str
    created_at: datetime
