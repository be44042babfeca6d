"""One turn of a session on the services: what is said is understood, answered and spoken, and the caller may speak into the answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import aiohttp

from tune_gpu.common.metric import Protocol
from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.workload.clients.call import Content, Sample
from tune_gpu.workload.clients.chat import Chat
from tune_gpu.workload.clients.hangup import Hangup
from tune_gpu.workload.clients.speech import SpeechSample
from tune_gpu.workload.sessions.habits import Habits
from tune_gpu.workload.sessions.history import History
from tune_gpu.workload.sessions.playback import Part, play
from tune_gpu.workload.sessions.speaker import Speaker
from tune_gpu.workload.sessions.values import Message, PlannedSession, PlannedTurn
from tune_gpu.workload.stages import Medium, Stage
from tune_gpu.workload.traffic import Traffic
from tune_gpu.workload.turn import FurtherRequest, Purpose, Turn

_TIMER_S = 0.001
"""Resolution of the event loop's timers."""
_CHARACTERS_PER_TOKEN = 4
"""Of the call of a tool, whose length the plan does not have."""


@dataclass(frozen=True)
class Line:
    """What all turns of a session share."""

    client: aiohttp.ClientSession
    traffic: Traffic
    workload: WorkloadSettings
    habits: Habits
    chain: tuple[Stage, ...]
    """The stages of a turn, or the one that is driven alone."""
    planned: PlannedSession
    history: History


class Exchange:
    """One turn.

    Args:
        line: of its session.
        planned: what is said.
        turn: receives what is measured, as it is measured.
    """

    def __init__(self, line: Line, planned: PlannedTurn, turn: Turn) -> None:
        self._line, self._planned, self._turn = line, planned, turn
        self._hangup = Hangup()
        self._parts: list[Part] = []
        self._answer: str | None = None
        self._heard_words = planned.says

    async def take(self) -> float:
        """Take the turn, add it to the history, and return when the caller has heard the answer (monotonic clock, seconds)."""
        await self._pass_stages()
        turn = self._turn
        until = self._hangup.at
        if until is None and turn.heard_from is not None and self._planned.barge_in_s is not None:
            until = turn.heard_from + self._planned.barge_in_s  # everything is there; the caller speaks into its playback
        played = play(self._parts, until)
        if played is not None:
            turn.stalls_s = played.stalls_s
        turn.interrupted = until is not None and (self._hangup.at is not None or (played is not None and played.ends >= until))
        self._line.history.add(self._planned, self._heard_words, None if turn.error else self._answer)
        if turn.interrupted and until is not None:
            return until
        return max(time.monotonic(), played.ends if played is not None else 0.0)

    async def _pass_stages(self) -> None:
        planned, turn = self._planned, self._turn
        due, content, spoken = turn.due, self._first_content(), False
        passed, sample = passed_labels(self._line.chain, planned), None
        for stage in self._line.chain:
            if stage.label not in passed:
                continue
            if stage.generates:
                tts = self._speech_behind(stage)
                sample = await self._answered(stage, tts, due)
                spoken = tts is not None
            elif stage.protocol is Protocol.SPEECH and spoken:
                continue
            else:
                query = planned.retrieval.query if stage.protocol is Protocol.EMBEDDING and planned.retrieval is not None else content
                sample = turn.samples[stage.label] = await self._ask(stage, query, due)
                if stage.protocol is Protocol.SPEECH:
                    self._heard_whole(sample)
                elif stage.protocol is Protocol.TRANSCRIPTION and self._line.habits.hears_transcript and isinstance(sample.output, str):
                    self._heard_words = sample.output
            if sample is None or sample.error or sample.done is None:
                return
            due = sample.done
            content = self._heard_words if stage.takes is Medium.AUDIO else sample.output if sample.output is not None else content
        if turn.heard_from is None and sample is not None:  # a chain without an answer that is heard
            turn.heard_from = sample.first_output

    def _first_content(self) -> Content:
        clip = self._planned.clip
        if self._line.chain[0].takes is Medium.AUDIO and clip is not None:
            return clip.content(Medium.AUDIO)
        return self._planned.says

    def _speech_behind(self, stage: Stage) -> Stage | None:
        """Return the service that speaks the answer of this one, if any."""
        chain = self._line.chain
        behind = chain[chain.index(stage) + 1 : chain.index(stage) + 2]
        return next((after for after in behind if after.protocol is Protocol.SPEECH), None)

    async def _answered(self, stage: Stage, tts: Stage | None, due: float) -> Sample | None:
        """Ask the LLM, first for the calls of tools, and speak its answer while it arrives. Return the answer; None if a call failed."""
        line, planned, turn = self._line, self._planned, self._turn
        messages = line.history.prompt(planned, self._heard_words)
        for step in planned.tools:
            called = await self._ask(stage, Chat(messages, line.planned.tools, tokens_of_call(step.call)), due)
            turn.further.append(FurtherRequest(stage.label, Purpose.TOOL, called))
            if called.error or called.done is None:
                return None
            due = called.done + step.latency_s
            await sleep_until(due)
            messages = [*messages, step.call, step.result]
        async with self._heard_as_it_arrives(tts) as speaker:
            asked = Chat(messages, line.planned.tools, planned.answer_tokens)
            sample = turn.samples[stage.label] = await self._ask(stage, asked, due, self._hangup, speaker.text)
            speaker.end(failed=sample.error is not None)
        self._answer = None if sample.output is None else str(sample.output)
        return sample

    @contextlib.asynccontextmanager
    async def _heard_as_it_arrives(self, tts: Stage | None) -> AsyncIterator[Speaker]:
        """Speak an answer within the block and until all of it is spoken; the caller may hang up."""
        turn, interrupts = self._turn, self._planned.barge_in_s
        timer: list[asyncio.TimerHandle] = []

        def heard(at: float) -> None:
            turn.heard_from = at
            if interrupts is not None:
                timer.append(asyncio.get_running_loop().call_later(max(0.0, at + interrupts - time.monotonic()), self._hangup.now))

        async def say(sentence: str, due: float, on_first: Callable[[float], None]) -> SpeechSample:
            assert tts is not None
            sample = await self._ask(tts, sentence, due, self._hangup, on_first=on_first)
            assert isinstance(sample, SpeechSample)
            return sample

        speaker = Speaker(say if tts is not None else None, self._line.habits.reading_s, self._hangup, heard)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(speaker.speak())
                yield speaker
        finally:
            for handle in timer:
                handle.cancel()
        self._parts = speaker.parts
        if tts is not None:
            for number, sample in enumerate(speaker.samples):
                if number == 0:
                    turn.samples[tts.label] = sample
                else:
                    turn.further.append(FurtherRequest(tts.label, Purpose.SENTENCE, sample))

    def _heard_whole(self, sample: Sample) -> None:
        if isinstance(sample, SpeechSample) and sample.first_output is not None and sample.done is not None:
            self._turn.heard_from = sample.first_output
            self._parts = [Part(sample.first_output, sample.done, sample.audio_s)]

    async def _ask(
        self,
        stage: Stage,
        content: Content | Chat,
        due: float,
        hangup: Hangup | None = None,
        on_text: Callable[[str], None] | None = None,
        on_first: Callable[[float], None] | None = None,
    ) -> Sample:
        line = self._line
        sample = await line.traffic.ask(line.client, stage, content, line.workload, due=due, hangup=hangup, on_text=on_text, on_first=on_first)
        if isinstance(sample, SpeechSample):
            sample.output = None  # the speech of a window would fill the memory
        return sample


async def ask_ahead(line: Line, planned: PlannedTurn, due: float, hangup: Hangup) -> FurtherRequest | None:
    """Ask the LLM with the words that were said so far, until the caller has spoken on. Return None for a chain without an LLM."""
    stage = next((stage for stage in line.chain if stage.generates), None)
    if stage is None or planned.preemptive is None:
        return None
    asked = Chat(line.history.prompt(planned, words_so_far(planned.says, planned.preemptive)), line.planned.tools, planned.answer_tokens)
    sample = await line.traffic.ask(line.client, stage, asked, line.workload, due=due, hangup=hangup)
    return FurtherRequest(stage.label, Purpose.PREEMPTIVE, sample)


def words_so_far(says: str, share: float) -> str:
    """Return the first share of the words, at least one."""
    words = says.split()
    return " ".join(words[: max(1, int(share * len(words)))])


def tokens_of_call(call: Message) -> int:
    """Return about how many tokens the call of a tool has."""
    written = call.content + json.dumps([dict(made) for made in call.tool_calls]) if call.tool_calls else call.content
    return max(1, len(written) // _CHARACTERS_PER_TOKEN)


def passed_labels(chain: Sequence[Stage], planned: PlannedTurn) -> tuple[str, ...]:
    """Return the labels of the stages that a turn passes: without a search it asks for no embedding, unless that is all there is."""
    searches = planned.retrieval is not None or all(stage.protocol is Protocol.EMBEDDING for stage in chain)
    return tuple(stage.label for stage in chain if searches or stage.protocol is not Protocol.EMBEDDING)


async def sleep_until(at: float) -> None:
    """Sleep until a time of the monotonic clock, and never less.

    The event loop's timers are up to a millisecond late (epoll counts in whole ones), so the last one is passed by asking again and again.
    """
    while (left := at - time.monotonic()) > 0:
        await asyncio.sleep(max(0.0, left - _TIMER_S))
