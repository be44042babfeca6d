"""Free ports on loopback."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Sequence

from tune_gpu.common.errors import UserError


def free_port(port_range: Sequence[int], rng: random.Random | None = None) -> int:
    """A port of the range (both ends included) that nothing is bound to now.

    It is tried from a random place, so that two runs on one machine seldom choose the same; who binds it later finds out
    (`port_conflict`) and asks again. Raises UserError if nothing in the range is free.
    """
    low, high = check_port_range(port_range)
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
    raise UserError(f"run.port_range={list(port_range)}: no port of it is free on 127.0.0.1; give a wider range")


def check_port_range(port_range: Sequence[int]) -> tuple[int, int]:
    """The range's ends. Raises UserError for what is no range of ports."""
    if len(port_range) != 2 or not 1 <= port_range[0] <= port_range[1] <= 65535:
        raise UserError(f"run.port_range={list(port_range)}: allowed is [LOW, HIGH] with 1 <= LOW <= HIGH <= 65535")
    return port_range[0], port_range[1]
