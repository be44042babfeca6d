"""Refuse results of another traffic: a number under one says nothing about another."""

from __future__ import annotations

from tune_gpu.common.errors import UserError


def check_unchanged(what: str, recorded: str | None, planned: str | None) -> str | None:
    """Return a note if it is not known whether a run's traffic is still the same, else None.

    Args:
        what: the command, as the user typed it.
        recorded: hash in the run's artifacts; None if an older program wrote them.
        planned: hash of what would be sent now; None if it is not known on this machine.

    Raises:
        UserError: they differ.
    """
    if recorded is None:
        return f"{what}: the run does not state its traffic (an older program measured it); it is taken to be what its configuration plans now"
    if planned is None:
        return f"{what}: the sources of the traffic are not on this machine, so it is not checked that they are those of the run"
    if recorded != planned:
        raise UserError(
            f"{what}: the run was measured under the traffic {recorded}, and its configuration now plans {planned}: a source has other content, or another "
            "version of this program plans it. Restore the source or the version, or launch a new run."
        )
    return None


def check_alike(what: str, theirs: str | None, run_id: str, ours: str | None) -> str | None:
    """Return a note if it is not known whether two runs have the same traffic, else None. Raise UserError if they have not.

    Args:
        what: the option that names the other run.
        theirs: hash of the other run's traffic.
        run_id: of the run that is compared with it.
        ours: hash of its traffic.
    """
    if theirs is None or ours is None:
        return f"{what}: {'it' if theirs is None else run_id} does not state its traffic (an older program measured it); both are taken to be the same"
    if theirs != ours:
        raise UserError(f"{what}: it was measured under the traffic {theirs}, {run_id} under {ours}. Give a run under the same traffic.")
    return None
