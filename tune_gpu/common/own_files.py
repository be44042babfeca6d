"""Recognise configurations that are the user's own: the shipped spaces, and files that this program sealed for the same user on this
machine.

The owner of a file proves nothing: a downloaded space belongs to its downloader. So a run's configuration is sealed with a key that only
the user can read. A file that was made elsewhere, or edited since, has no valid seal.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import stat
import tempfile
from pathlib import Path

import platformdirs

from tune_gpu.common.places import SOURCE

SPACES_FOLDER = SOURCE / "search_spaces"
_KEY_BYTES = 32
_SEALED = re.compile(r"(?P<text>.*\n)# seal (?P<seal>[0-9a-f]{64})\n", re.DOTALL)


def is_own(path: Path, text: str) -> bool:
    """Return True if this text, read from this path, is a shipped space or was sealed by this user.

    The path alone proves nothing: the owner of a run's folder can replace the file by a link to a shipped space after the text was read.
    """
    if (shipped := path.resolve()).parent == SPACES_FOLDER:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return shipped.read_bytes().decode() == text
    if (sealed_text := _SEALED.fullmatch(text)) is None:
        return False
    with contextlib.suppress(OSError):
        return hmac.compare_digest(_seal_of(sealed_text["text"], _key(make=False)), sealed_text["seal"])
    return False


def sealed(text: str) -> str:
    """Return the text of a YAML file with this user's seal, a comment, as its last line. Return it unchanged without a key (in a
    read-only home)."""
    with contextlib.suppress(OSError):
        return f"{text}# seal {_seal_of(text, _key(make=True))}\n"
    return text


def _seal_of(text: str, key: bytes) -> str:
    return hmac.new(key, b"tune_gpu configuration\n" + text.encode(), hashlib.sha256).hexdigest()


def key_file() -> Path:
    """Return the path of the user's key."""
    return Path(os.environ.get("TUNE_GPU_CACHE") or platformdirs.user_config_dir("tune_gpu")) / "seal_key"


def _key(*, make: bool) -> bytes:
    """Return the user's key. Raise OSError if it does not exist, or if somebody else may have read or written it."""
    path = key_file()
    if make and not os.path.lexists(path):
        _make(path)
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        there = os.fstat(handle)
        key = file.read(_KEY_BYTES + 1) if stat.S_ISREG(there.st_mode) else b""
    if there.st_uid != os.geteuid() or there.st_mode & 0o077 or len(key) != _KEY_BYTES:
        raise OSError(f"{path}: not a key that only this user can read")
    return key


def _make(path: Path) -> None:
    """Create a key atomically. Of two processes that do so at the same time, the second keeps the first one's key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(prefix=".seal_key-", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(handle)
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    finally:
        os.unlink(aside)
