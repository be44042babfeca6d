"""The messages of a session's requests: its system prompt, what was said so far, and the words of a turn."""

from __future__ import annotations

from tune_gpu.workload.sessions.values import Message, PlannedSession, PlannedTurn, Role


class History:
    """What the requests of one session hold.

    Args:
        planned: the session.
        own: it holds what was heard and answered, rather than the plan's texts.
    """

    def __init__(self, planned: PlannedSession, *, own: bool) -> None:
        self._planned, self._own = planned, own
        self._said = list(planned.past)

    @property
    def returning(self) -> bool:
        """Return whether anything was said before."""
        return bool(self._said)

    def prompt(self, turn: PlannedTurn, words: str) -> list[Message]:
        """Return the messages of a turn's request. What a search found stands in front of the words."""
        content = words if turn.retrieval is None else f"{turn.retrieval.context}\n\n{words}"
        return [*system_of(self._planned, turn), *self._said, Message(Role.USER, content)]

    def beside(self, messages: tuple[Message, ...]) -> list[Message]:
        """Return the messages of a request beside the turns: what was said so far, and its own."""
        return [*self._planned.system, *self._said, *messages]

    def add(self, turn: PlannedTurn, words: str, answer: str | None) -> None:
        """Add a turn that has ended.

        A recorded history holds the plan's texts whatever happened, so that all candidates get equal prompts. One of its own does not hold a turn
        without an answer, because the roles of messages must alternate.

        Args:
            turn: of the plan.
            words: what the LLM got of the caller's.
            answer: what was answered, up to where the caller spoke into it; None for a turn that failed.
        """
        if not self._own:
            words, answer = turn.says, turn.recorded
        if answer:
            steps = [message for step in turn.tools for message in (step.call, step.result)]
            self._said += [Message(Role.USER, words), *steps, Message(Role.ASSISTANT, answer)]


def system_of(session: PlannedSession, turn: PlannedTurn) -> tuple[Message, ...]:
    """Return the messages before the history of a turn's requests."""
    return session.system if turn.system is None else turn.system
