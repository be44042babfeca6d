"""Who listens on a port of this machine, by the kernel's list of sockets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import psutil

_LOOPBACK_FIRST = (("127.0.0.1", "::ffff:127.0.0.1"), ("0.0.0.0", "::ffff:0.0.0.0"), ("::",))  # noqa: S104 - compared, not bound
"""Addresses that take a connection to 127.0.0.1. The kernel gives it to the most specific one, and among equal ones (SO_REUSEPORT) to any."""


def owners(port: int) -> set[int | None]:
    """Return the processes that a connection to 127.0.0.1 at this port may reach. None stands for one of another user."""
    bound: dict[str, set[int | None]] = {}
    for each in psutil.net_connections("tcp"):
        if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port:
            bound.setdefault(each.laddr.ip, set()).add(each.pid)
    for addresses in _LOOPBACK_FIRST:
        if found := set[int | None]().union(*(bound.get(address, set()) for address in addresses)):
            return found
    return set()


def listening(pids: Iterable[int]) -> set[tuple[str, int]]:
    """Return the addresses and ports on which these processes listen. A process that has ended, or may not be read, has none."""
    found: set[tuple[str, int]] = set()
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            found.update((each.laddr.ip, each.laddr.port) for each in psutil.Process(pid).net_connections("tcp") if each.status == psutil.CONN_LISTEN)
    return found


def reachable(address: str) -> str:
    """Return the address at which a listener of this address is reached from this machine."""
    return "127.0.0.1" if any(address in group for group in _LOOPBACK_FIRST) else address


def shown(address: str, port: int) -> str:
    """Return the address as it stands in a URL."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
