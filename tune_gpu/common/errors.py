"""The error for invalid input."""

from __future__ import annotations

from tune_gpu.common.wording import plain


class UserError(ValueError):
    """Invalid input, as one line: *key: problem. What to do.* Every command prints it and exits with code 2."""

    def __init__(self, message: object) -> None:
        super().__init__(plain(" ".join(str(message).splitlines())))  # the user's input may hold line ends; the message must not
