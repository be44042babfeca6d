"""Match a card's name, as drivers and people write it, to a card of the table.

A suffix makes another card: an "H20-3e" has half as much memory again as an "H20", an "RTX 3060 Laptop GPU" half as much as an "RTX 3060". So
a name matches a card only if all its words are the card's, without the words that do not identify a card: the vendor, the kind of memory, the
connector. A card that cannot be distinguished from another is not in the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_VENDOR = frozenset({"nvidia", "geforce", "tesla", "graphics", "gpu", "corporation", "generation", "amd", "instinct", "radeon"})
_MEMORY_KIND = re.compile(r"hbm\d?e?|gddr\d?x?|lpddr\d?x?")
_CONNECTOR = re.compile(r"sxm\d?|pcie|oam|fhhl|dgxs|ac")
"""How a card is built in, which leaves its memory the same. An entry with the same connector (`H100 PCIe`) comes first. "AC" is air-cooled
(`NVIDIA B300 SXM6 AC`)."""
_EDITION = frozenset({"workstation", "server", "max", "q", "edition"})
"""Editions of the RTX PRO 6000 Blackwell, all with the same memory. In other names (`Quadro RTX 6000 with Max-Q Design`) these words make another card."""
_MEMORY = re.compile(r"\d+gb")
_SERIES = frozenset({"2060", "2070", "2080", "3050", "3060", "3070", "3080", "3090", "4050", "4060", "4070", "4080", "4090", "5060", "5070", "5080",
                     "5090", "a4000", "a4500", "a5000", "a5500", "a6000"})  # fmt: skip
"""Numbers that people write without their `RTX`."""


def words(name: str) -> frozenset[str]:
    """Return the words of a name that identify the card."""
    plain = name.lower().replace("dgx spark", "gb10")
    plain = re.sub(r"\(\s*(?=[^)]*\d)\w+(?:[.\-]\w+)+\s*\)", " ", plain)  # a cloud's name for the machine: (a2-highgpu-1g)
    plain = re.sub(r"(\d)\s+gb\b", r"\1gb", plain)
    plain = re.sub(r"\b(\d+)g(i?b)?\b", r"\1gb", plain)
    plain = re.sub(r"\b(gh200)[ -]?(120|480)gb\b", r"\1", plain)  # that is the memory of its processor
    plain = re.sub(r"\b\d{1,2}\s?[x×*]\s?(?=[a-z]|\d{4})|\bx\s?\d{1,2}\b", " ", plain)  # how many there are
    plain = re.sub(r"\b(rtx|gtx)(\d)", r"\1 \2", plain)
    plain = re.sub(r"(\d)(ti|super)\b", r"\1 \2", plain)
    found = {word for word in re.findall(r"[a-z0-9]+", plain) if word not in _VENDOR and not _MEMORY_KIND.fullmatch(word)}
    if {"rtx", "pro", "6000"} <= found:
        found -= _EDITION
    return frozenset(found | {"rtx"} if found & _SERIES and not found & {"rtx", "gtx", "quadro"} else found)


def gb_in_name(name: str) -> int | None:
    """Return the memory in a name, in GB, or None if the name has none or several."""
    found = [int(word[:-2]) for word in words(name) if _MEMORY.fullmatch(word)]
    return found[0] if len(found) == 1 else None


def matching(name: str, table: Iterable[str]) -> str | None:
    """Return the entry of the table that is this card, or None. If the name has a memory (`gb_in_name`), the entry's may be another.

    Tried in this order: the same words; the same without the connector; the same without a memory that only the name has; the same without
    a memory that only the table has, of which the first entry is meant ("A100").
    """
    own = {entry: words(entry) for entry in table}
    given = words(name)
    bare = frozenset(word for word in given if not _CONNECTOR.fullmatch(word))
    for wanted in (given, bare, *(_without_memory(each) for each in (given, bare))):
        if wanted and (entry := next((entry for entry, its in own.items() if its == wanted), None)) is not None:
            return entry
    if gb_in_name(name) is not None or not bare:
        return None
    return next((entry for entry, its in own.items() if _without_memory(its) == bare), None)


def _without_memory(of: frozenset[str]) -> frozenset[str]:
    return frozenset(word for word in of if not _MEMORY.fullmatch(word))
