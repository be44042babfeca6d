"""What goes wrong because of what was asked, told in one line."""

from __future__ import annotations

from tune_gpu.common.wording import plain


class UserError(ValueError):
    """Bad input: names the key, what was given and what is allowed. Every command turns it into one line and exit code 2."""

    def __init__(self, message: object) -> None:
        super().__init__(plain(" ".join(str(message).splitlines())))  # what was given may hold line ends; what is said has none
