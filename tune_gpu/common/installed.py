"""Which distributions are installed."""

from __future__ import annotations

from importlib import metadata


def is_installed(distribution: str) -> bool:
    """Return whether a distribution of this name is installed. Nothing of it is imported."""
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
