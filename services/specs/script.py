"""Which of a job's fields its own script hears; those of the service's loop only through the script's arguments."""

from collections.abc import Iterator
from typing import Any

from xsam.services.specs.base import Spec, field_error
from xsam.services.specs.task import Entrypoint

_OF_THE_LOOP = ("optimizer", "schedule", "batch_size", "precision", "recipe", "parameters", "speed", "checkpoint")
_TAGS = ("variant", "name")
"""Fields that say of which class a part is."""
_UNSET = object()


def check_heard(job: Spec, entrypoint: Entrypoint) -> None:
    """Refuse a field that only the service's loop reads, unless the script's arguments name it or what it is part of.

    Raises:
        PydanticCustomError: names the field.
    """
    named = entrypoint.placeholders()
    for field in _OF_THE_LOOP:
        usual = type(job).model_fields[field].get_default(call_default_factory=True)
        for path in _given(getattr(job, field), usual, field):
            if not any(path == name or path.startswith(f"{name}.") for name in named):
                raise field_error(
                    path,
                    f"{path} is read by the service's loop, not by the script {entrypoint.file}; pass it on in "
                    f'entrypoint as "{{{path}}}", or leave it out and use config',
                )


def _given(value: Any, usual: Any, path: str) -> Iterator[str]:
    """Yield the paths at which a value differs from the usual one, or from its own class's defaults."""
    if not isinstance(value, Spec):
        if value != usual:
            yield path
        return
    if type(value) is not type(usual):
        yield from (f"{path}.{tag}" for tag in _TAGS if tag in type(value).model_fields)
        usual = type(value).model_construct()
    for name in type(value).model_fields:
        yield from _given(getattr(value, name), getattr(usual, name, _UNSET), f"{path}.{name}")
