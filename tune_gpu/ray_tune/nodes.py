"""Ask every node of a cluster that a trial may run on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.services.cards import fewest_cards

AnswerT = TypeVar("AnswerT")
_ANSWER_S = 120.0
"""The first worker of a node may have to build its runtime environment."""


@dataclass(frozen=True)
class Node:
    """One node of the running Ray, by Ray's names."""

    id: str
    address: str

    @property
    def name(self) -> str:
        """Return its address and the beginning of its id, as `ray list nodes` has them."""
        return f"{self.address} ({self.id[:8]})"


class NoAnswerOfNode(Exception):
    """A node has not answered; the text says why in one line."""


def nodes_of_trials(config: ExperimentConfig, kind: str) -> list[Node]:
    """Return the nodes of the running Ray with enough cards for a candidate; on the CPU, with cores for one."""
    least = {"GPU": float(fewest_cards(config))} if kind == "cuda" else {"CPU": config.ray.cpus_per_trial}
    alive = [node for node in ray.nodes() if node["Alive"]]
    fitting = [node for node in alive if all(node["Resources"].get(name, 0.0) >= amount for name, amount in least.items())]
    return sorted((Node(node["NodeID"], node["NodeManagerAddress"]) for node in fitting), key=lambda node: (node.address, node.id))


def on_each_node(nodes: list[Node], question: Callable[..., AnswerT], *arguments: Any) -> dict[Node, AnswerT | NoAnswerOfNode]:
    """Call a function on every node at once, and return what it returns there, or why it could not be called."""
    asked = {node: _ask(node, question, arguments) for node in nodes}
    return {node: _answer(pending) for node, pending in asked.items()}


def _ask(node: Node, question: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    there = NodeAffinitySchedulingStrategy(node.id, soft=False)
    remote: Any = ray.remote(question)
    return remote.options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(*arguments)


def _answer(pending: Any) -> Any:
    try:
        return ray.get(pending, timeout=_ANSWER_S)
    except GetTimeoutError:
        return NoAnswerOfNode(f"it has not answered for {_ANSWER_S:g} s")
    except RayError as error:  # for example, this program is not installed there
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        return NoAnswerOfNode(lines[-1][:300])
