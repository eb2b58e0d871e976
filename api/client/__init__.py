"""The typed client; the one public name of this folder."""

from xsam.api.client.client import Client

__all__ = ["Client"]
