"""Numbers in words."""

from __future__ import annotations

import pytest

from tune_gpu.common.wording import duration_text


@pytest.mark.parametrize(("seconds", "words"), [
    (0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (60, "1 min"), (252.2, "4 min 12 s"), (599.4, "9 min 59 s"), (599.6, "10 min"), (725, "12 min"),
    (3569, "59 min"), (3571, "1 h"), (11_100, "3 h 5 min"), (90_000, "25 h"),
])  # fmt: skip
def test_a_time_is_in_whole_units_and_no_finer_than_its_length(seconds: float, words: str) -> None:
    assert duration_text(seconds) == words
