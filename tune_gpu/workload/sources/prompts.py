"""Single requests: a text with one per line, or JSON lines of `{"prompt": "…", "output_tokens": 128}` as vLLM's benchmark takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tune_gpu.config.session_settings import MOST_TOKENS
from tune_gpu.workload.sources.lines import Place, lines_of, object_of, words
from tune_gpu.workload.sources.values import Conversation, Exchange


@dataclass(frozen=True)
class Prompts:
    """A file of single requests."""

    text: str
    place: Place
    synthetic = False

    def conversations(self) -> Sequence[Conversation]:
        """Return one conversation of one turn for each line. Raise UserError for a line that is not a prompt, with its number."""
        as_json = self.text.lstrip().startswith("{")
        return [Conversation(place.where, (_from_json(line, place) if as_json else Exchange(words(line, place, "the prompt")),)) for place, line in lines_of(self.text, self.place)]

    def notes(self) -> Sequence[str]:
        """Return nothing: all are used."""
        return ()


def _from_json(line: str, place: Place) -> Exchange:
    content = object_of(line, place)
    if "prompt" not in content:
        raise place.error("no prompt", 'Write {"prompt": "…"}.')
    tokens = content.get("output_tokens")
    if tokens is not None and (not isinstance(tokens, int) or isinstance(tokens, bool) or not 0 < tokens <= MOST_TOKENS):
        raise place.error("output_tokens is not a number of tokens", f"Write a whole number from 1 to {MOST_TOKENS}, or leave it out.")
    return Exchange(words(content["prompt"], place, "the prompt"), answer_tokens=tokens)
