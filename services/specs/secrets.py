"""Names of a team's secrets: what a job asks for, and the environment variables in which it finds them."""

from typing import Annotated

from pydantic import AfterValidator, StringConstraints
from pydantic_core import PydanticCustomError

MAX_SECRETS = 16
"""Of a job. So many of the longest values still go to a rank in Ray's message itself, not through its store's files."""
_RESERVED = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "TMPDIR", "TMP", "TEMP", "LANG", "IFS", "ENV"),
        *("VIRTUAL_ENV", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
        *("GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_NAME", "ROLE_WORLD_SIZE"),
    }
)
_RESERVED_BEGINNINGS = (
    *("LD_", "DYLD_", "LC_", "BASH_", "PYTHON", "RAY_", "XSAM_", "UV_", "PIP_", "CUDA_", "NVIDIA_", "NCCL_", "GLOO_"),
    *("TORCH", "PYTORCH_", "OMP_", "MKL_"),
    "AWS_",  # with a bucket, ranks upload checkpoints with what they find there
)
"""What the loader, Python, Ray, torch, the installer of packages and this service read."""


def _is_free(name: str) -> str:
    if name in _RESERVED or name.startswith(_RESERVED_BEGINNINGS):
        begun = ", ".join(f"{one}*" for one in _RESERVED_BEGINNINGS)
        raise PydanticCustomError(
            "reserved",
            "Input should be none of the reserved names, which are {names} and {begun}",
            {"names": ", ".join(sorted(_RESERVED)), "begun": begun},
        )
    return name


SecretName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$", max_length=64), AfterValidator(_is_free)]
"""A secret's name, which is that of the environment variable."""
