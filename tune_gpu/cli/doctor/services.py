"""Check what the kinds of service need, and the services of a space. A kind of another package may be broken, and costs one line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace

from tune_gpu.common.errors import UserError
from tune_gpu.config.kinds import kind_names, load_kind
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.experiment.space_check import services_in_use
from tune_gpu.search.space import SearchSpace
from tune_gpu.services.base import Examined, Service, ServiceKind
from tune_gpu.services.findings import DoctorFinding, Level, Machine, fail, ok
from tune_gpu.services.registry import services_of


def check_kinds(machine: Machine, used: Collection[str]) -> Iterator[DoctorFinding]:
    """Check every kind that is installed. What fails of a kind that no service is of is only noted.

    Args:
        machine: with the device that the services would run on.
        used: kinds that the space has services of.
    """
    for name in kind_names():
        for finding in _guarded(f"kind {name}", lambda name=name: _examined(load_kind(name), machine)):  # type: ignore[misc]
            unused = finding.level is Level.FAIL and name not in used
            yield replace(finding, level=Level.NOTE, found=f"{finding.found} (the space has no service of kind {name})") if unused else finding


def check_services(config: ExperimentConfig, machine: Machine) -> Iterator[DoctorFinding]:
    """Check every service of a space, with each value of its parameters: its program, its models, its key, whether it answers."""
    space = SearchSpace.from_specs(config.parameters)
    for name in (service.name for service in services_of(config.services)):
        with_each_value = [service for service in services_in_use(config, space) if service.name == name]
        found = [finding for service in with_each_value for finding in _guarded(name, lambda service=service: _checked(service, machine))]  # type: ignore[misc]
        yield from dict.fromkeys(found)


def _examined(kind: ServiceKind, machine: Machine) -> list[DoctorFinding]:
    if isinstance(kind, Examined):
        return list(kind.examine(machine))
    missing = kind.missing(machine.device)
    return [ok(f"kind {kind.name}", "installed") if missing is None else _failed(f"kind {kind.name}", missing)]


def _checked(service: Service, machine: Machine) -> list[DoctorFinding]:
    if (missing := service.kind.missing(machine.device)) is not None:
        return [_failed(service.name, missing)]
    service.kind.check(service.name, service.settings, local=True)
    if isinstance(service.kind, Examined):
        return list(service.kind.examine_service(service.name, service.settings))
    return [ok(service.name, f"what it needs is here (kind {service.kind.name})")]


def _guarded(check: str, examine: Callable[[], Iterable[DoctorFinding]]) -> list[DoctorFinding]:
    """Return the findings, or that the examination failed: a kind of another package may raise anything."""
    try:
        return list(examine())
    except UserError as error:
        return [_failed(check, str(error))]
    except Exception as error:
        problem = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return [fail(check, f"cannot be examined ({problem})", "repair or reinstall the package of its kind")]


def _failed(check: str, message: str) -> DoctorFinding:
    """Return the failure of a message of the form *key: problem. What to do.*"""
    problem, _, remedy = message.partition(". ")
    return fail(check, problem.rstrip("."), remedy.rstrip(".") or "change it in the space")
