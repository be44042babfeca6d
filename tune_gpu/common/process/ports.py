"""Find free ports on loopback."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Sequence

from tune_gpu.common.errors import UserError


def free_port(port_range: Sequence[int], rng: random.Random | None = None) -> int:
    """Return a port of the range (both ends included) to which nothing is bound.

    The search starts at a random place, so that two runs on one machine seldom choose the same port. A service that finds its port taken
    fails with `port_conflict` and gets another. Raise UserError if no port of the range is free.
    """
    low, high = check_port_range("run.port_range", port_range)
    offset = (rng or random.Random()).randrange(high - low + 1)
    for step in range(high - low + 1):
        port = low + (offset + step) % (high - low + 1)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
                continue
            return port
    raise UserError(f"run.port_range={list(port_range)}: no port of this range is free on 127.0.0.1. Set a wider range.")


def check_port_range(key: str, port_range: Sequence[int]) -> tuple[int, int]:
    """Return the two ends of the range. Raise UserError if it is not a range of ports; the message begins with the key of the setting."""
    if len(port_range) != 2 or not 1 <= port_range[0] <= port_range[1] <= 65535:
        raise UserError(f"{key}={list(port_range)}: not a range of ports. Set [LOW, HIGH] with 1 <= LOW <= HIGH <= 65535.")
    return port_range[0], port_range[1]
