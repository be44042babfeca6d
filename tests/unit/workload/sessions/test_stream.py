"""A plan is streamed: it keeps no session that was yielded."""

from __future__ import annotations

import math
import weakref
from itertools import islice

from tests.benchmarks.session_plan import WORKLOAD
from tests.unit.workload.sessions.test_plan_sessions import STAGES
from tune_gpu.workload.sessions.plan import stream_sessions
from tune_gpu.workload.sources.loaded import load_sources


def test_a_stream_without_end_keeps_no_session() -> None:
    sessions = stream_sessions(WORKLOAD, load_sources(WORKLOAD, STAGES), seed=0, index=0, seconds=math.inf)
    seen = [weakref.ref(session) for session in islice(sessions, 5000)]
    assert sum(reference() is not None for reference in seen) <= 1
