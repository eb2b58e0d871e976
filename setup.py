"""Which packages are installed under which names; everything else about the distribution stands in pyproject.toml.

The rooms lie at the top level of the repository and are imported below one root: `services` is `xsam.services`. `xsam`
itself is a namespace without a file, so other distributions may add to it. What users' own code imports, `xsam.sdk`, is
the folder `workers/sdk`.
"""

from setuptools import find_packages, setup

ROOMS = ("services", "workers", "api")

found = find_packages(include=["xsam_core*", *(f"{room}*" for room in ROOMS)])
setup(
    packages=["xsam.sdk", *(name if name.startswith("xsam_core") else f"xsam.{name}" for name in found)],
    package_dir={"xsam_core": "xsam_core", "xsam.sdk": "workers/sdk"} | {f"xsam.{room}": room for room in ROOMS},
)
