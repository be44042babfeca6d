"""Read the size of a checkpoint's tensors from headers alone, without any weight."""

from __future__ import annotations

import itertools
import math
import struct
from pathlib import Path
from typing import BinaryIO

from tune_gpu.common import outside_files
from tune_gpu.common.errors import UserError

_GGML_BLOCKS = {  # type id: (weights in a block, bytes of a block); from the GGUF specification (ggml.h)
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36), 10: (256, 84), 11: (256, 110),
    12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50),
    20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56),
    30: (1, 2),
}
_GGUF_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


_GGUF_STRING, _GGUF_ARRAY = 8, 9
_MOST_FILES = 10_000
_MOST_GGUF_VALUES = 3_000_000
"""Most values in a GGUF header. The largest vocabularies and their merges have fewer than a million."""
_LARGEST = 2**60


class _Unknown(Exception):
    """The header is unknown: another or a newer format, or one that ends too early."""


def checkpoint_bytes(folder: Path) -> float | None:
    """Return the bytes of all tensors in a model's folder, or None if it has no weights (a toy that is drawn at load time, for example).

    `model.safetensors.index.json` has them in `metadata.total_size`; else each safetensors header (8 bytes of length, then JSON with the
    offsets of every tensor) or GGUF header is read.

    Raises:
        UserError: a file with a checkpoint's name is not one, or is not complete.
    """
    size = _index_bytes(folder / "model.safetensors.index.json")
    if size:
        return float(size)
    tensors = _files(folder, "*.safetensors")
    if tensors:
        return float(sum(_safetensors_bytes(path) for path in tensors))
    quantised = _files(folder, "*.gguf")
    return gguf_bytes(quantised[0]) if quantised else None


def _files(folder: Path, pattern: str) -> list[Path]:
    found = sorted(itertools.islice(folder.glob(pattern), _MOST_FILES + 1))
    if len(found) > _MOST_FILES:
        raise UserError(f"{folder}: more than {_MOST_FILES} files {pattern}. Give the folder of one model.")
    return found


def _index_bytes(path: Path) -> int | None:
    """Return the total in an index, or None if it has none."""
    try:
        index = outside_files.read_json(path, outside_files.INDEX)
    except outside_files.NotThere:
        return None
    about = index.get("metadata") if isinstance(index, dict) else None
    total = about.get("total_size") if isinstance(about, dict) else None
    return int(total) if total is not None and _is_size(total) else None


def _is_size(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _LARGEST and value == int(value)


def _safetensors_bytes(path: Path) -> int:
    with outside_files.opened(path, outside_files.HEADER) as (file, size):
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= size - 8 or length > outside_files.HEADER.largest:
            raise UserError(f"{path}: not a safetensors file (a header of {length} bytes in a file of {size}). {outside_files.HEADER.remedy}")
        text = file.read(length)
    header = outside_files.parse_json(text, path, outside_files.HEADER)
    entries = [entry for name, entry in header.items() if name != "__metadata__"] if isinstance(header, dict) else [None]
    ends = [_end(entry) for entry in entries]
    if None in ends:
        raise UserError(f"{path}: not a safetensors file (its header does not say where each tensor ends). {outside_files.HEADER.remedy}")
    last = max((end for end in ends if end is not None), default=0)
    if 8 + length + last > size:
        raise UserError(f"{path}: not a whole file (its tensors end at byte {8 + length + last}, the file at {size}). {outside_files.HEADER.remedy}")
    return last


def _end(entry: object) -> int | None:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or not _is_size(offsets[1]):
        return None
    return int(offsets[1])


class _GgufHeader:
    """A GGUF header, read forward, with limits on the number of values and of bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._values = file, 0

    def number(self, form: str) -> int:
        """Return the next number. Raise ValueError beyond the limit."""
        content = self._file.read(struct.calcsize(form))
        self._values += 1
        if len(content) < struct.calcsize(form):
            raise _Unknown
        if self._values > _MOST_GGUF_VALUES:
            raise ValueError(f"more than {_MOST_GGUF_VALUES} values")
        return int(struct.unpack("<" + form, content)[0])

    def skip(self, count: int) -> None:
        """Skip bytes. Raise ValueError beyond the limit."""
        if self._file.tell() + count > outside_files.GGUF.largest:
            raise ValueError(f"a header of more than {outside_files.GGUF.largest} bytes")
        self._file.seek(count, 1)

    def skip_value(self, kind: int) -> None:
        """Skip a value of the table of facts."""
        if kind in _GGUF_SCALARS:
            self.skip(_GGUF_SCALARS[kind])
        elif kind == _GGUF_STRING:
            self.skip(self.number("Q"))
        elif kind == _GGUF_ARRAY:
            inner, count = self.number("I"), self.number("Q")
            if inner in _GGUF_SCALARS:
                self.skip(_GGUF_SCALARS[inner] * count)
            elif inner == _GGUF_STRING:
                for _ in range(count):
                    self.skip(self.number("Q"))
            else:  # arrays of arrays: the format allows them, and no file has them
                raise _Unknown
        else:
            raise _Unknown

    def tensor_bytes(self) -> float:
        """Return the bytes of the next tensor in the table of tensors."""
        self.skip(self.number("Q"))
        dimensions = self.number("I")
        if dimensions > 8:
            raise ValueError(f"a tensor of {dimensions} dimensions")
        shape = [self.number("Q") for _ in range(dimensions)]
        kind = self.number("I")
        if kind not in _GGML_BLOCKS:
            raise _Unknown
        weights, size = _GGML_BLOCKS[kind]
        self.skip(8)
        return math.prod(shape) / weights * size


def gguf_bytes(path: Path) -> float | None:
    """Return the bytes of the tensors in a GGUF file, from its table of tensors, or None if it is not a complete GGUF of a known version
    and kind.

    Raises:
        UserError: not a regular file, or a header longer than any model's.
    """
    with outside_files.opened(path, outside_files.GGUF) as (file, _):
        try:
            header = _GgufHeader(file)
            if file.read(4) != b"GGUF" or header.number("I") not in (2, 3):
                return None
            tensors, entries = header.number("Q"), header.number("Q")
            for _ in range(entries):
                header.skip(header.number("Q"))
                header.skip_value(header.number("I"))
            total = sum(header.tensor_bytes() for _ in range(tensors))
            if total >= _LARGEST:
                raise ValueError(f"tensors of {total:.3g} bytes")
        except _Unknown:
            return None
        except (ValueError, OverflowError) as error:
            raise UserError(f"{path}: not a model's GGUF file ({error}). {outside_files.GGUF.remedy}") from error
    return float(total)
