"""Find and read the files of clips, transcripts and texts. They come from outside."""

from __future__ import annotations

import codecs
import os
import stat
import unicodedata
from pathlib import Path

from tune_gpu.common.errors import UserError
from tune_gpu.workload.wer import units_of

_LONGEST_TEXT = 64 * 1024
_MARKS = (  # the longer first: UTF-32's mark begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip


def clips_of(folder: Path) -> list[tuple[Path, Path]]:
    """Return every clip with the text beside it, by name. Case does not matter: ONE.WAV belongs to one.txt.

    Raises:
        UserError: a clip has no text, or names are ambiguous.
    """
    files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    clips = [path for path in files if path.suffix.casefold() == ".wav"]
    texts = [path for path in files if path.suffix.casefold() == ".txt"]
    found: list[tuple[Path, Path]] = []
    without: list[Path] = []
    for clip in clips:
        same = [path for path in texts if path.stem == clip.stem] or [path for path in texts if _bare(path) == _bare(clip)]
        if len(same) > 1:
            raise UserError(f"{clip.name}: {same[0].name} and {same[1].name} may both be its text. Rename one.")
        if not same:
            without.append(clip)
            continue
        if rival := next((other for other, text in found if text == same[0]), None):
            raise UserError(f"{clip.name}: {rival.name} has the same text, {same[0].name}; their names differ only by case or encoding. Rename one.")
        found.append((clip, same[0]))
    if found and without:
        raise UserError(f"{without[0].name}: no {without[0].stem}.txt beside it. Write what the clip says, or move the clip away.")
    return found


def _bare(path: Path) -> str:
    """Return a file's name without case, and with accents composed, which macOS stores decomposed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path.stem).casefold())


def read_reference(path: Path, language: str) -> str:
    """Return the reference transcript of a clip. One without words has no word error rate, and would end every evaluation that uses it.

    Raises:
        UserError: the text has no words, or an unknown encoding.
    """
    reference = decoded(path, read_whole(path, _LONGEST_TEXT)).strip()
    if not units_of(reference, language):
        raise UserError(f"{path.name}: no words (text in brackets does not count, nor do um and uh in English). Write what the clip says.")
    return reference


def decoded(path: Path, content: bytes) -> str:
    """Return the text of a file: UTF-8, or what its byte-order mark names. Raise UserError for another encoding."""
    mark, encoding = next(((mark, name) for mark, name in _MARKS if content.startswith(mark)), (b"", "utf-8"))
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name}: not {encoding.upper()} ({error.reason} at byte {error.start + len(mark)}). Save it as UTF-8.") from error
    if "\0" in text:
        raise UserError(f"{path.name}: not UTF-8 (it holds zero bytes, as UTF-16 without a byte-order mark does). Save it as UTF-8.")
    return text


def read_whole(path: Path, limit: int, advice: str = "Cut it into shorter clips.") -> bytes:
    """Return the content of a regular file. Raise UserError for any other kind of file, and for more than `limit` bytes.

    Args:
        path: of the file.
        limit: in bytes.
        advice: what to do about a file that is too long.
    """
    try:
        # Opening a pipe that has no writer would block.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UserError(f"{path.name}: not a regular file. Put the file itself there.")
            content = file.read(limit + 1)
    except OSError as error:
        raise UserError(f"{path.name}: cannot be read ({error.strerror or error})") from error
    if len(content) > limit:
        raise UserError(f"{path.name}: longer than {limit / 2**20:g} MiB. {advice}")
    return content
