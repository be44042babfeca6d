"""The HTTP client for checks and probes of services, on this machine or where the user says that one runs.

It never uses a proxy, so a key goes to the service alone. It follows no redirect. A deadline bounds the whole exchange, because a
server that sends one byte a second never exceeds the time-out of a single read. A limit bounds the size of an answer.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import time
from typing import Any
from urllib.parse import urlsplit

DEADLINE_S = 10.0
MAX_BYTES = 16 * 2**20
"""Largest answer, in bytes. A busy engine's `/metrics` has about a megabyte."""
_CONNECTIONS: dict[str, Any] = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}


class NoAnswer(OSError):
    """The service did not give a complete HTTP answer in time."""


def get(url: str, key: str | None = None, deadline_s: float = DEADLINE_S, max_bytes: int = MAX_BYTES, method: str = "GET") -> tuple[int, bytes]:
    """Send one request, and return the status and the body.

    Args:
        url: `http://HOST[:PORT][/PATH]`, or the same with https.
        key: sent as `Authorization: Bearer`; None or empty sends none.
        deadline_s: for the connection, the request and the whole answer.
        max_bytes: of the body.
        method: of the request, which has no body.

    Raises:
        NoAnswer: there was no complete answer. The message never contains the key.
    """
    deadline = time.monotonic() + deadline_s
    try:
        token = None if not key else _token(key)
        parts = urlsplit(url)
        if parts.scheme not in _CONNECTIONS or not parts.hostname:
            raise NoAnswer(f"{url}: not an address of the form http://HOST:PORT")
        kind = _CONNECTIONS[parts.scheme]
        with contextlib.closing(kind(parts.hostname, parts.port or kind.default_port, timeout=_left(deadline))) as connection:
            connection.connect()
            connection.sock = _Socket(connection.sock, deadline)  # all further reads and writes observe the deadline
            headers = {"Connection": "close"} | ({} if token is None else {"Authorization": token})
            connection.request(method, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), headers=headers)
            reply = connection.getresponse()
            body = reply.read(max_bytes + 1)
            if len(body) > max_bytes:
                raise NoAnswer(f"{url}: the answer is longer than {max_bytes} bytes")
            if reply.length:  # bytes that the server announced and did not send
                raise NoAnswer(f"{url}: the answer ended {reply.length} bytes too early")
            return reply.status, body
    except NoAnswer:
        raise
    except TimeoutError as error:
        raise NoAnswer(f"{url}: no whole answer within {deadline_s:g} s") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswer(f"{url}: {type(error).__name__}: {' '.join(str(error).split())[:160]}") from error


def _token(key: str) -> str:
    """Return the key as a header's value, with characters above ASCII as UTF-8."""
    if not key.isprintable():  # http.client's own message would quote the key
        raise NoAnswer("the key has a control character, which no HTTP header may have")
    return f"Bearer {key}".encode().decode("latin-1")


class _Socket:
    """The part of a socket that `http.client` uses."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock, self._deadline = sock, deadline

    def sendall(self, data: Any) -> None:
        self._sock.settimeout(_left(self._deadline))
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._deadline))

    def close(self) -> None:
        self._sock.close()


class _Reader(io.RawIOBase):
    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock, self._deadline = sock, deadline
        self._raw = sock.makefile("rb", buffering=0)  # http.client closes the socket before it reads the body; this keeps it open

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left(self._deadline))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return left
