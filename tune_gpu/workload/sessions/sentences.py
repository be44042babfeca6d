"""Cut a text into sentences while it arrives, so that the first is spoken before the last exists."""

from __future__ import annotations

import re

_END = re.compile(r"[.!?…]+[\"'”’)\]]*\s+|[。！？]+|\n+")
"""A sentence ends with its mark and a space: what follows a mark at once may be a decimal or a dot of its own."""
_LEAST = 12
"""Characters. What is shorter, an abbreviation or "Yes." for example, is spoken with the sentence behind it."""


class Sentences:
    """The sentences of one answer."""

    def __init__(self) -> None:
        self._pending = ""

    def add(self, part: str) -> list[str]:
        """Return the sentences that this part completes."""
        self._pending += part
        found: list[str] = []
        at = 0
        for end in _END.finditer(self._pending):
            sentence = self._pending[at : end.end()].strip()
            if len(sentence) >= _LEAST:
                found.append(sentence)
                at = end.end()
        self._pending = self._pending[at:]
        return found

    def rest(self) -> list[str]:
        """Return what is left at the end of the answer, if anything."""
        rest, self._pending = self._pending.strip(), ""
        return [rest] if rest else []
