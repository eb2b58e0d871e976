"""Names of environment variables that files of deployments set."""

from pydantic import BaseModel

from xsam.services.settings import Settings


def is_setting(variable: str) -> bool:
    """Return whether there is a setting of this name, `XSAM_GROUP__FIELD`."""
    model: type[BaseModel] = Settings
    *groups, field = variable.removeprefix("XSAM_").lower().split("__")
    for group in groups:
        inner = model.model_fields[group].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        model = inner
    return field in model.model_fields
