"""What goes wrong because of what was asked, told in one line."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input: names the key, what was given and what is allowed. Every command turns it into one line and exit code 2."""
