"""Copy a run's artifacts to Ray's storage: a folder, `s3://…`, `gs://…`, or any other file system that fsspec knows.

The run's folder on this machine stays authoritative (a line is on disk before the search sees it); the copy follows file by file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tune_gpu.common.errors import UserError


class ArtifactSync:
    """Copy files below `root` to the same places below a URI.

    Args:
        uri: a URI as in Ray's `storage_path`.
        root: the artifacts folder.

    Raises:
        UserError: the kind of file system is unknown, or it cannot be written.
    """

    def __init__(self, uri: str, root: Path) -> None:
        self._root, self.uri = root, uri
        try:
            self._files, base = _file_system(uri)
            self._base = base.rstrip("/")
            self._files.create_dir(self._base, recursive=True)
        except Exception as error:  # each file system has its own errors
            raise UserError(f"ray.storage_path={uri}: cannot be written ({str(error).splitlines()[0][:200]})") from error

    def push(self, *paths: Path) -> None:
        """Copy these files as they are now. Raise OSError."""
        for path in paths:
            if path.is_file():
                there = f"{self._base}/{path.relative_to(self._root).as_posix()}"
                self._files.create_dir(there.rpartition("/")[0], recursive=True)
                with self._files.open_output_stream(there) as stream:
                    stream.write(path.read_bytes())


def _file_system(uri: str) -> tuple[Any, str]:
    """Return the file system and the path in it, as Ray does: Arrow's own file systems first, then fsspec's."""
    import pyarrow.fs

    try:
        return pyarrow.fs.FileSystem.from_uri(uri if "://" in uri else str(Path(uri).expanduser().resolve()))
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError):
        import fsspec

        files, path = fsspec.core.url_to_fs(uri)
        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(files)), path
