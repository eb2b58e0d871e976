"""Rows of the bundles that teams have uploaded; the files lie in the artifact store, once for all teams."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from xsam.services.db.base import Base


class BundleRow(Base):
    """A team's right to a bundle, and what is known of it."""

    __tablename__ = "bundles"

    team: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    packed_bytes: Mapped[int]
    unpacked_bytes: Mapped[int]
    num_files: Mapped[int]
    commit: Mapped[str | None]
    """Of git, where the folder was in a repository."""
    is_dirty: Mapped[bool]
    """Whether files differed from the commit."""
    made_by: Mapped[str]
    created_at: Mapped[datetime]
