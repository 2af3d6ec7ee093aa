"""Free TCP ports on the loopback interface for servers that must come back on the same port.

Ports are taken from below the range that operating systems hand out to outgoing connections: a
port of that range can be taken by a client's reconnect attempt (even by one connecting to itself)
while its server is down, and the restart would then fail.
"""

import random
import socket

LOOPBACK = "127.0.0.1"
_CANDIDATES = range(20_000, 32_000)
_ATTEMPTS = 200


def free_port() -> int:
    """Return a port nobody listens on now.

    Raises:
        OSError: none of the tried ports could be bound.
    """
    refused: OSError | None = None
    for port in random.sample(_CANDIDATES, _ATTEMPTS):
        with socket.socket() as probe:
            # What the servers set too: connections of a former server may still be in TIME_WAIT.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError as error:
                refused = error
            else:
                return port
    raise OSError(f"no free port in {_CANDIDATES} after {_ATTEMPTS} attempts") from refused


def accepts_connections(port: int, *, timeout_seconds: float = 0.5) -> bool:
    """Return whether something listens on `port` of the loopback interface."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=timeout_seconds):
            return True
    except OSError:
        return False
