"""Check which distributions are installed."""

from __future__ import annotations

from importlib import metadata


def is_installed(distribution: str) -> bool:
    """Return whether a distribution with this name is installed, without importing it."""
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
