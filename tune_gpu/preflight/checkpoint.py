"""How large a checkpoint's tensors are, from headers alone: no weight is read."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

_GGML_BLOCKS = {  # type id: (weights in a block, bytes of a block); from the GGUF specification (ggml.h)
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36), 10: (256, 84), 11: (256, 110),
    12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50),
    20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56),
    30: (1, 2),
}
_GGUF_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


_NOT_A_HEADER = (ValueError, KeyError, IndexError, TypeError, AttributeError, OSError, OverflowError, RecursionError)
"""What reading a file may raise that only has a checkpoint's name."""


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**60:
        raise ValueError("not a size")
    return value


def checkpoint_bytes(folder: Path) -> float | None:
    """Bytes of all tensors in a model's folder; null where there are no weights (a toy that is drawn at load time, say).

    `model.safetensors.index.json` says it in `metadata.total_size`; else each safetensors header (8 bytes of length, then JSON with the
    offsets of every tensor) or GGUF header is read.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            size = _size(json.loads(index.read_text(encoding="utf-8")).get("metadata", {}).get("total_size"))
        except _NOT_A_HEADER:
            size = 0
        if size:
            return float(size)
    tensors = sorted(folder.glob("*.safetensors"))
    if tensors:
        return float(sum(_safetensors_bytes(path) for path in tensors))
    quantised = sorted(folder.glob("*.gguf"))
    return gguf_bytes(quantised[0]) if quantised else None


def _safetensors_bytes(path: Path) -> int:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError("longer than the file")
            header = json.loads(file.read(length))
        return max((_size(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"), default=0)
    except _NOT_A_HEADER:
        return path.stat().st_size  # a header that is not understood: the file is its tensors, all but a few KiB


def gguf_bytes(path: Path) -> float | None:
    """Bytes of the tensors in a GGUF file, from its table of tensors; null if it is no GGUF of version 2 or 3."""
    with path.open("rb") as file:
        def read(form: str) -> int:
            return int(struct.unpack("<" + form, file.read(struct.calcsize(form)))[0])

        def skip_value(kind: int) -> None:
            if kind in _GGUF_SCALARS:
                file.seek(_GGUF_SCALARS[kind], 1)
            elif kind == 8:
                file.seek(read("Q"), 1)
            elif kind == 9:
                inner, count = read("I"), read("Q")
                if inner in _GGUF_SCALARS:
                    file.seek(_GGUF_SCALARS[inner] * count, 1)
                else:
                    for _ in range(count):
                        skip_value(inner)
            else:
                raise ValueError(f"unknown GGUF value type {kind}")

        try:
            if file.read(4) != b"GGUF" or read("I") not in (2, 3):
                return None
            tensors, entries = read("Q"), read("Q")
            for _ in range(entries):
                file.seek(read("Q"), 1)
                skip_value(read("I"))
            total = 0.0
            for _ in range(tensors):
                file.seek(read("Q"), 1)
                shape = [read("Q") for _ in range(read("I"))]
                weights, size = _GGML_BLOCKS[read("I")]
                file.seek(8, 1)
                total += math.prod(shape) / weights * size
        except (struct.error, *_NOT_A_HEADER):
            return None
    return total if math.isfinite(total) else None
