"""Which traffic the settings of faster-whisper need in order to matter."""

from __future__ import annotations

from collections.abc import Sequence

from tune_gpu.services.exercise import Unexercised, Use, greatest, least


def unexercised(uses: Sequence[Use]) -> tuple[Unexercised, ...]:
    """Return the settings that could not matter: workers, as long as no utterance waits for another."""
    most, limit = greatest([use.requests_at_once for use in uses]), least([use.settings.num_workers for use in uses])
    if most is None or limit is None or most > limit:
        return ()
    return (Unexercised(("num_workers",), f"at most {most:.0f} of {limit:.0f} transcriptions at once"),)
