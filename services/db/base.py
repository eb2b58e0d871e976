"""The declarative base, the naming convention of constraints, and new ids."""

import secrets
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

from xsam.services.db.types import JsonColumn, UtcDateTime

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

CHECKED_ON_POSTGRESQL = {"checked_on": "postgresql"}
"""`info` of an index that SQLite does not show as it is: only PostgreSQL's is compared with the models."""

_ID_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
_ID_LENGTH = 12


class Base(DeclarativeBase):
    """Parent of all rows."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime(),
        dict[str, Any]: JsonColumn,
        dict[str, str]: JsonColumn,
        list[float]: JsonColumn,
        list[str]: JsonColumn,
        list[dict[str, Any]]: JsonColumn,
    }


def new_id() -> str:
    """Return a short random id (59 bits) without look-alike letters, safe in paths and shell lines."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))
