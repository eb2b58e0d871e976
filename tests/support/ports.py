"""Ports for servers of the tests' own, which may be stopped and started again on the same one."""

import random
import socket

_RANGE = range(20_000, 32_768)
"""Below those that Linux gives to outgoing connections, so that none takes a server's port while it is down; above
those of Ray's workers."""


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    while True:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", random.SystemRandom().choice(_RANGE)))
            except OSError:
                continue
            return int(probe.getsockname()[1])
