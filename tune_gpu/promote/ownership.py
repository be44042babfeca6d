"""Check who can change a path. What root installs and restores must not be changeable by anybody else."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path

from tune_gpu.common.errors import UserError


def foreign(path: Path) -> str | None:
    """Return why somebody other than root and this user can change the content of a path, or None if nobody can.

    Every folder of the path counts, from the file system's root to the targets of links: whoever may rename a folder decides what is found
    in it. Missing parts of the path will be created by this user.
    """
    for place in (asked := path.resolve(), *asked.parents):
        try:
            known = place.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            return f"{place} cannot be read ({error.strerror})"
        if known.st_uid not in (0, os.geteuid()):
            return f"{place} belongs to {_name(known.st_uid)}"
        if _others_may_write(known, on_the_way=place != asked):
            return f"{place} may be written by others (mode {stat.S_IMODE(known.st_mode):04o})"
    return None


def check_own(key: str, path: Path) -> None:
    """Raise UserError if somebody other than root and this user can change the content of the path.

    Args:
        key: the setting or the path that errors name.
        path: a file or a folder.
    """
    if why := foreign(path):
        raise UserError(f"{key}: {why}. Use a folder that only root and {_name(os.geteuid())} can change.")


def _others_may_write(known: os.stat_result, *, on_the_way: bool) -> bool:
    if on_the_way and known.st_mode & stat.S_ISVTX:
        return False  # like /tmp: others may add files, but neither rename nor remove files of other users
    by_group = known.st_mode & stat.S_IWGRP and known.st_gid != 0 and not _is_private(known.st_gid)
    return bool(known.st_mode & stat.S_IWOTH or by_group)


def _is_private(gid: int) -> bool:
    """Return whether a group has this user as its only member. On some systems all users share a group."""
    if gid != os.getegid():
        return False
    try:
        members = set(grp.getgrgid(gid).gr_mem)
    except KeyError:  # a group without a name, as in a container
        members = set()
    members |= {user.pw_name for user in pwd.getpwall() if user.pw_gid == gid}
    return members <= {"root", _name(os.geteuid())}


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
