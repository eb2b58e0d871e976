"""The release of this code."""

from importlib.metadata import version

VERSION = version("xsam")
