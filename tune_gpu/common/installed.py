"""Find which distributions are installed, and which versions this program needs."""

from __future__ import annotations

from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet


def is_installed(distribution: str) -> bool:
    """Return whether a distribution with this name is installed, without importing it."""
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def version_of(distribution: str) -> str | None:
    """Return the version of a distribution, or None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def required(distribution: str) -> SpecifierSet | None:
    """Return the versions of a distribution that this program needs; None if it names none, or is not installed itself."""
    try:
        texts = metadata.requires("tune-gpu") or []
    except metadata.PackageNotFoundError:
        return None
    return next((each.specifier for each in map(Requirement, texts) if each.name == distribution), None)
