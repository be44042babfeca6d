"""Conversations in the form of OpenAI's chat API: JSON lines of `{"messages": […], "tools": […]}`, or of its batch API (`{"body": {…}}`)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune_gpu.workload.sessions.values import Message, Role
from tune_gpu.workload.sources.lines import Place, lines_of, object_of, words
from tune_gpu.workload.sources.values import Conversation, Exchange

_SYSTEM = ("system", "developer")
_ORDER = "Messages are of the system, then user and assistant in turn, with tools between them."


@dataclass(frozen=True)
class OpenAIMessages:
    """A file of OpenAI's messages."""

    text: str
    place: Place
    synthetic = False

    def conversations(self) -> Sequence[Conversation]:
        """Return one conversation for each line. Raise UserError for a line that is not a conversation, with its number."""
        return [_conversation(object_of(line, place), place) for place, line in lines_of(self.text, self.place)]

    def notes(self) -> Sequence[str]:
        """Return nothing: a line that cannot be used is an error."""
        return ()


def _conversation(content: Mapping[str, Any], place: Place) -> Conversation:
    body = content.get("body") if isinstance(content.get("body"), dict) else content
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list):
        raise place.error("no list of messages", 'Write {"messages": [{"role": "user", "content": "…"}]}.')
    read = [_message(message, place, number) for number, message in enumerate(messages, 1)]
    system = list(itertools.takewhile(lambda message: message.role is Role.SYSTEM, read))
    exchanges = _exchanges(read[len(system) :], place, len(system) + 1)
    if not exchanges:
        raise place.error("a conversation without a turn", "Add a message of the user, or remove the line.")
    tools = definitions_of(body.get("tools") or [], place) if isinstance(body, dict) else ()
    return Conversation(place.where, tuple(exchanges), "\n\n".join(message.content for message in system) or None, tools)


def _message(content: Any, place: Place, number: int) -> Message:
    what = f"message {number}"
    if not isinstance(content, dict):
        raise place.error(f"{what} is a {type(content).__name__}, not an object", 'Write {"role": …, "content": …}.')
    role = content.get("role")
    role = "system" if role in _SYSTEM else role
    if role not in list(Role):
        raise place.error(f"{what} has the role {str(role)[:40]!r}", f"Use one of {', '.join(Role)}.")
    calls = _calls(content.get("tool_calls"), place, what)
    if calls and role != Role.ASSISTANT:
        raise place.error(f"{what} is of the {role}, and calls tools", "Only the assistant calls tools.")
    text = _text(content.get("content"), place, what, empty=bool(calls) or role == Role.TOOL)
    identity = content.get("tool_call_id")
    if role == Role.TOOL and not isinstance(identity, str):
        raise place.error(f"{what} is a tool's result without a tool_call_id", "Name the call that it answers.")
    return Message(Role(role), text, calls, identity if role == Role.TOOL else None)


def _text(content: Any, place: Place, what: str, *, empty: bool) -> str:
    """Return the text of a message, which may be given in parts. Raise UserError for an image, or for speech."""
    if isinstance(content, list):
        for part in content:
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            if kind != "text":
                raise place.error(f"{what} has a part {str(kind)[:40]!r}: only texts can be sent", "Remove it, or give speech as a folder of clips.")
        content = "\n".join(str(part.get("text", "")) for part in content)
    if empty and (content is None or (isinstance(content, str) and not content.strip())):
        return ""
    return words(content, place, f"the content of {what}")


def _calls(content: Any, place: Place, what: str) -> tuple[Mapping[str, Any], ...]:
    if content in (None, []):
        return ()
    calls = content if isinstance(content, list) else [content]
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not all(isinstance(of, str) for of in (call.get("id"), function.get("name"), function.get("arguments"))):
            raise place.error(f"{what} has a tool call without id, function.name or function.arguments", "Write all three as texts.")
    return tuple({"id": call["id"], "type": "function", "function": {key: call["function"][key] for key in ("name", "arguments")}} for call in calls)


def definitions_of(content: Any, place: Place) -> tuple[Mapping[str, Any], ...]:
    """Return definitions of tools. Raise UserError if it is not a list of them."""
    for number, tool in enumerate(content if isinstance(content, list) else [None], 1):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise place.error(f"tool {number} is not a definition of a function", 'Write a list of {"type": "function", "function": {"name": …}}.')
    return tuple(content)


def _exchanges(messages: Sequence[Message], place: Place, first: int) -> list[Exchange]:
    """Return the turns of a conversation. Raise UserError for roles out of order."""
    found: list[Exchange] = []
    at = 0
    while at < len(messages):
        if messages[at].role is not Role.USER:
            raise place.error(f"message {first + at} is of the {messages[at].role}, where the user's is due", _ORDER)
        says, at = messages[at].content, at + 1
        steps: list[tuple[Message, Message]] = []
        while at < len(messages) and messages[at].tool_calls:
            more, at = _steps(messages, at, place, first)
            steps += more
        answer = None
        if at < len(messages):
            if messages[at].role is not Role.ASSISTANT:
                raise place.error(f"message {first + at} is of the {messages[at].role}, where the assistant's is due", _ORDER)
            answer, at = messages[at].content, at + 1
        found.append(Exchange(says, answer, tools=tuple(steps)))
    return found


def _steps(messages: Sequence[Message], at: int, place: Place, first: int) -> tuple[list[tuple[Message, Message]], int]:
    """Return the calls of one message, each alone with its result, and the position after the results."""
    caller, results = messages[at], {}
    at += 1
    while at < len(messages) and messages[at].role is Role.TOOL:
        results[messages[at].tool_call_id] = messages[at]
        at += 1
    steps = []
    for number, call in enumerate(caller.tool_calls):
        if (result := results.pop(call["id"], None)) is None:
            raise place.error(f"the tool call {call['id'][:40]!r} has no result", "Add the tool's message, or remove the call.")
        steps.append((Message(Role.ASSISTANT, "" if number else caller.content, (call,)), result))
    if results:
        raise place.error(f"message {first + at - 1} answers no call of the message before the results", _ORDER)
    return steps, at
