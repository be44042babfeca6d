"""Conversations in the form of ShareGPT: a JSON list (or JSON lines) of `{"conversations": [{"from": "human", "value": "…"}, …]}`.

Public files hold conversations that begin with an answer, or in which a role is missing. vLLM's and aiperf's readers leave out what they cannot use; so
does this one, and counts it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tune_gpu.common.wording import counted
from tune_gpu.workload.sources.lines import MOST_CONVERSATIONS, Place, json_of, lines_of, object_of
from tune_gpu.workload.sources.values import Conversation, Exchange

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant", "bing": "assistant", "bard": "assistant", "system": "system"}


@dataclass(frozen=True)
class ShareGpt:
    """A file of ShareGPT."""

    text: str
    place: Place
    synthetic = False
    _unused: dict[str, list[str]] = field(default_factory=dict, init=False, compare=False)
    """Reason -> places of the conversations that are not used."""

    def conversations(self) -> Sequence[Conversation]:
        """Return the conversations that have a turn of the user. Raise UserError for anything but conversations."""
        self._unused.clear()
        found = [_conversation(content, place, self._unused) for place, content in self._entries()]
        return [conversation for conversation in found if conversation is not None]

    def notes(self) -> Sequence[str]:
        """Return how many conversations are not used, by reason."""
        return [f"{counted(len(places), 'conversation')} not used: {reason} (the first: {places[0]})" for reason, places in self._unused.items()]

    def _entries(self) -> Iterator[tuple[Place, Mapping[str, Any]]]:
        if self.text.lstrip().startswith("["):
            entries = json_of(self.text, self.place, "Complete the file.")
            if len(entries) > MOST_CONVERSATIONS:
                raise self.place.error(f"more than {MOST_CONVERSATIONS} conversations", "Keep fewer.")
            for number, entry in enumerate(entries, 1):
                place = self.place.at(f"conversation {number}")
                if not isinstance(entry, dict):
                    raise place.error(f"a JSON {type(entry).__name__}, not an object", 'Write {"conversations": […]}.')
                yield place, entry
            return
        for place, line in lines_of(self.text, self.place):
            yield place, object_of(line, place)


def _conversation(content: Mapping[str, Any], place: Place, unused: dict[str, list[str]]) -> Conversation | None:
    messages = content.get("conversations", content.get("conversation"))
    if not isinstance(messages, list):
        raise place.error("no list of conversations", 'Write {"conversations": [{"from": "human", "value": "…"}]}.')
    read: list[tuple[str, str]] = []
    for number, message in enumerate(messages, 1):
        role, text = (message.get("from", message.get("role")), message.get("value", message.get("content"))) if isinstance(message, dict) else (None, None)
        if not isinstance(role, str) or not isinstance(text, str):
            raise place.error(f"message {number} has no texts from and value", 'Write {"from": "human", "value": "…"}.')
        read.append((_ROLES.get(role.casefold(), role), text.strip().encode("utf-8", "replace").decode()))
    system = "\n\n".join(text for role, text in itertools.takewhile(lambda one: one[0] == "system", read)) or None
    turns = list(itertools.dropwhile(lambda one: one[0] in ("system", "assistant"), read))
    reason = _problem(turns)
    if reason is not None:
        unused.setdefault(reason, []).append(place.where)
        return None
    pairs = [(turns[at][1], turns[at + 1][1] if at + 1 < len(turns) else None) for at in range(0, len(turns), 2)]
    return Conversation(place.where, tuple(Exchange(says, answer) for says, answer in pairs), system)


def _problem(turns: Sequence[tuple[str, str]]) -> str | None:
    """Return why turns cannot be used, or None if the user and the assistant take turns."""
    if not turns:
        return "without a turn of the user"
    if any(role != ("user", "assistant")[at % 2] for at, (role, _) in enumerate(turns)):
        return "roles out of order"
    return None if all(text for _, text in turns) else "an empty message"
