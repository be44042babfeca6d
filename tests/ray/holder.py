"""An actor in a trial's GPU bundle, as the services are; imports next to nothing, because a cluster test starts many."""

from __future__ import annotations

import os

import ray


class HoldsCard:
    """Holds its part of the card."""

    def place(self) -> tuple[str, str]:
        """Node and CUDA_VISIBLE_DEVICES."""
        return ray.get_runtime_context().get_node_id(), os.environ.get("CUDA_VISIBLE_DEVICES", "")
