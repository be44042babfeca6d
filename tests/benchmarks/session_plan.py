"""Plan a million turns of sessions and print the time and the memory: `python -m tests.benchmarks.session_plan [TURNS]`.

The plan is streamed: no session is kept, so the memory must be the same for ten times the turns.
"""

from __future__ import annotations

import math
import resource
import sys
import time

from tune_gpu.common.metric import Protocol
from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.config.session_settings import (
    ArrivalSettings,
    ProfileSettings,
    RetrievalSettings,
    SystemPromptSettings,
    ToolCallSettings,
    TurnTakingSettings,
)
from tune_gpu.workload.sessions.plan import stream_sessions
from tune_gpu.workload.sources.loaded import load_sources
from tune_gpu.workload.stages import turn_stages

WORKLOAD = WorkloadSettings(
    kind="sessions",
    arrivals=ArrivalSettings(sessions_per_min=600),
    turn_taking=TurnTakingSettings(400, 0.06, 0.25),
    profiles={
        "home": ProfileSettings(0.7, system_prompt=SystemPromptSettings(tokens=1500), tool_calls=ToolCallSettings(0.6)),
        "phone": ProfileSettings(0.3, system_prompt=SystemPromptSettings(tokens=3000, per_session_tokens=400), turns=8, retrieval=RetrievalSettings(0.5)),
    },
)


def streamed(turns: int, seed: int = 0) -> tuple[int, int]:
    """Plan so many turns, and return the numbers of sessions and turns."""
    sources = load_sources(WORKLOAD, turn_stages(["llm"], {"llm": Protocol.CHAT}))
    n_sessions = n_turns = 0
    for session in stream_sessions(WORKLOAD, sources, seed=seed, index=0, seconds=math.inf):
        n_sessions, n_turns = n_sessions + 1, n_turns + len(session.turns)
        if n_turns >= turns:
            break
    return n_sessions, n_turns


def peak_mib() -> float:
    """Return the greatest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(turns: int) -> None:
    """Print time and memory for a tenth of the turns, and for all."""
    streamed(1000)
    print(f"before: {peak_mib():.0f} MiB")
    for n in (turns // 10, turns):
        wall, used = time.perf_counter(), time.process_time()
        n_sessions, n_turns = streamed(n)
        print(
            f"{n_turns:,} turns of {n_sessions:,} sessions: {time.perf_counter() - wall:.1f} s ({time.process_time() - used:.1f} s of a core), "
            f"peak memory {peak_mib():.0f} MiB"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
