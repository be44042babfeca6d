"""Settings of a run, of Ray, and of the promotion of a winner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tune_gpu import metrics
from tune_gpu.common.default_pair import LLM, STT
from tune_gpu.common.errors import UserError
from tune_gpu.common.process.ports import check_port_range
from tune_gpu.config.rules import By, Items, bounded, one_of, rule, ruled
from tune_gpu.config.texts import check_line, check_unit, check_url


def _check_environment(key: str, runtime_env: dict[str, Any]) -> None:
    variables = runtime_env.get("env_vars")
    if variables is not None and not isinstance(variables, dict):
        raise UserError(f"{key}.env_vars={variables}: not a mapping. Set a mapping of variables to text.")
    if "CUDA_VISIBLE_DEVICES" in (variables or {}):
        raise UserError(f"{key}.env_vars.CUDA_VISIBLE_DEVICES: Ray assigns the cards, and this variable would override the assignment in every trial. Remove it.")


@dataclass
class RaySettings:
    address: str | None = None
    """`auto`, `host:port` or `ray://host:port` joins a cluster; null starts a local Ray that ends with the run."""
    max_concurrent_trials: int | None = bounded(None, least=1)
    """null: as many as fit on the cluster's cards, or one on the CPU."""
    trials_per_card: int = bounded(1, least=1)
    """Above 1, trials share a card, for a first, coarse screening. They disturb each other, and their results say so."""
    cpus_per_trial: float = bounded(1.0, least=0)
    """CPU cores that Ray reserves for a trial: on a card for its load generator, on the CPU for the whole trial."""
    cpus_per_service: float = bounded(0.5, least=0)
    """CPU cores that Ray reserves for each of the two services on a card."""
    max_retries: int = bounded(2, least=0)
    """Retries after a transient failure (`port_conflict`, `service_lost`, `measurement_invalid`); `startup_timeout` is retried once."""
    runtime_env: dict[str, Any] = field(default_factory=dict, metadata=rule(By(_check_environment)))
    """Ray's runtime environment of every trial and service (`env_vars`, `working_dir`, `pip` …)."""
    storage_path: str | None = None
    """Where Ray keeps its results and where a copy of the artifacts goes: a folder, or any URI that Ray's storage accepts (`s3://…`). null:
    the run's own folder."""
    dashboard: bool = True
    connect_timeout_s: float = bounded(20.0, above=0)


@dataclass
class RunSettings:
    """Where a run writes, how it runs, and when it ends."""

    artifacts_dir: str = "artifacts"
    port_range: list[int] = field(default_factory=lambda: [20000, 29999], metadata=rule(By(check_port_range)))
    time_budget_s: float | None = bounded(None, above=0)
    preflight: bool = True
    """Refuse candidates that cannot fit according to the memory model, before anything starts."""
    memory_stable_samples: int = bounded(3, least=1)
    memory_stable_mib: float = bounded(64.0, above=0)
    memory_timeout_s: float = bounded(30.0, least=0)
    warm_engine: bool = True
    """Fork engines from a process that has imported vLLM (CPU), and reuse an engine while its flags do not change."""
    stop_timeout_s: float = bounded(20.0, least=0)
    hang_timeout_s: float = bounded(15.0, least=0)
    """A running service is hung if it answers neither its health check nor any pending request for this long. 0: wait for the requests' own
    time-outs."""
    mps: bool = False
    """Permission to start NVIDIA's MPS daemon for trials that use it (`mps_active_thread_pct`), and to stop it after them."""


def _check_url_if_given(key: str, url: str) -> None:
    if url:
        check_url(key, url)


@dataclass
class ServiceTarget:
    """The deployment of one service."""

    unit: str = ""
    """Name of the unit in systemd, or in the process supervisor; empty: `tune-gpu-NAME.service`."""
    url: str = ruled("", By(_check_url_if_given))
    """Address at which it listens; empty: the next free port of 127.0.0.1 from 8000 on, in the order of the space."""
    key_env: str = ""
    """Environment variable with the service's API key, for the probes of `promote --apply`; empty: the variable that the service reads. The key
    itself is never written anywhere."""
    command: list[str] = field(default_factory=list, metadata=rule(Items(By(check_line))))
    """Program that starts the service, before its measured arguments; empty: this installation's own."""
    model: str = ruled("", By(check_line))
    """Name under which it serves its model; empty: the model's own name."""


@dataclass
class PromoteSettings:
    """When and where a winner may be deployed, and when it is rolled back. `promote` never reads these from a run's own configuration."""

    device: str = one_of("auto", "auto", "cpu", "cuda")
    """The target's kind of device: `cuda`, `cpu`, or `auto` (this machine's)."""
    metric: str = metrics.VOICE_TURN.at("p95")
    min_gain_pct: float = bounded(10.0, least=0)
    """Minimum gain of the winner over the baseline in the metric. It may be worse in no metric beyond `confirm.tolerances`."""
    neighbours_mib: float | None = bounded(None, least=0)
    """Memory that other processes use on the target's device; null: as measured now."""
    neighbours_tolerance_mib: float = bounded(512.0, least=0)
    soak_s: float = bounded(300.0, above=0)
    soak_growth_pct: float = bounded(5.0, least=0)
    """Maximum growth of a service's memory during the soak."""
    target: str = one_of("systemd", "systemd", "process")
    """`systemd` or `process` (a plain supervisor)."""
    install_dir: str = ruled("/etc/tune-gpu", By(check_line))
    systemd_dir: str = ruled("/etc/systemd/system", By(check_line))
    served_model_name: str | None = None
    """Name under which the default pair's vLLM serves its model; null: the model's own name. Other services: `services.NAME.model`."""
    services: dict[str, ServiceTarget] = field(default_factory=dict)
    """Service of the space -> where it is deployed. What is given here has precedence over the default pair's own keys."""
    vllm: ServiceTarget = field(default_factory=lambda: ServiceTarget(LLM.unit, LLM.url, LLM.key_env))
    whisper: ServiceTarget = field(default_factory=lambda: ServiceTarget(STT.unit, STT.url, STT.key_env))
    health_deadline_s: float = bounded(300.0, above=0)
    """Time after the restart within which all services must answer their health checks."""
    probes: int = bounded(5, least=0)
    """Number of live turns after the restart, one after another; 0 for none."""
    probe_max_ratio: float = bounded(2.0, above=0)
    """Maximum ratio of the live turns' median latency to the median that the comparison measured."""

    def conflicts(self, at: str) -> Iterator[str]:
        """Yield a message for each broken rule that joins several settings. Raise UserError for an invalid unit name."""
        llm, stt = self._pair()
        for name, service in ((LLM.name, llm), (STT.name, stt)):
            check_unit(f"{at}{name}.unit", service.unit, of_systemd=self.target == "systemd")
        for name, service in self.services.items():
            if service.unit:
                check_unit(f"{at}services.{name}.unit", service.unit, of_systemd=self.target == "systemd")
        if llm.unit == stt.unit:
            yield f"{at}{LLM.name}.unit={llm.unit}: the same unit as {STT.title}'s. Give each service a unit of its own."

    def _pair(self) -> tuple[ServiceTarget, ServiceTarget]:
        return getattr(self, LLM.name), getattr(self, STT.name)
