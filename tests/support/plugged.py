"""A package of somebody else's that has a kind of service: `fake`, by its entry point."""

from __future__ import annotations

from pathlib import Path


def plug(folder: Path) -> Path:
    """Write what an installer leaves of such a package, and return the folder for the path."""
    written = folder / "fake_kind-1.0.dist-info"
    written.mkdir(parents=True)
    (written / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-kind\nVersion: 1.0\n")
    (written / "entry_points.txt").write_text("[tune_gpu.services]\nfake = tune_gpu.testing.fake_kind:KIND\n")
    return folder
