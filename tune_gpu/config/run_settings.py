"""Settings of a run and of what becomes of its winner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tune_gpu import metrics
from tune_gpu.common.errors import UserError
from tune_gpu.common.process.ports import check_port_range
from tune_gpu.config.rules import By, Items, bounded, one_of, rule, ruled
from tune_gpu.config.texts import check_line, check_unit, check_url


def _check_environment(key: str, runtime_env: dict[str, Any]) -> None:
    variables = runtime_env.get("env_vars")
    if variables is not None and not isinstance(variables, dict):
        raise UserError(f"{key}.env_vars={variables}: not a mapping. Set a mapping of variables to text.")
    if "CUDA_VISIBLE_DEVICES" in (variables or {}):
        raise UserError(f"{key}.env_vars.CUDA_VISIBLE_DEVICES: Ray assigns the cards, and this would override it for every trial. Remove it.")


@dataclass
class RaySettings:
    address: str | None = None
    """`auto`, `host:port` or `ray://host:port` joins a cluster; null starts a local Ray that ends with the run."""
    max_concurrent_trials: int | None = bounded(None, least=1)
    """Null: as many as the cluster's cards hold; on the CPU one."""
    trials_per_card: int = bounded(1, least=1)
    """Above 1 trials share a card, for a first, coarse screening: they disturb each other, and every number so measured says it."""
    cpus_per_trial: float = bounded(1.0, least=0)
    """Cores that Ray counts for a trial: on a card for its load generator, on the CPU for all of it."""
    cpus_per_service: float = bounded(0.5, least=0)
    """On a card, for each of the two services."""
    max_retries: int = bounded(2, least=0)
    """How often a trial whose failure may pass (`port_conflict`, `service_lost`, `measurement_invalid`) is tried again; `startup_timeout` once."""
    runtime_env: dict[str, Any] = field(default_factory=dict, metadata=rule(By(_check_environment)))
    """Ray's runtime environment of every trial and service (`env_vars`, `working_dir`, `pip` …)."""
    storage_path: str | None = None
    """Where Ray keeps its own results and a copy of the artifacts goes: a folder or any URI that Ray's storage takes (`s3://…`); null: the
    run's own folder."""
    dashboard: bool = True
    connect_timeout_s: float = bounded(20.0, above=0)


@dataclass
class RunSettings:
    """Where things go and when they end."""

    artifacts_dir: str = "artifacts"
    port_range: list[int] = field(default_factory=lambda: [20000, 29999], metadata=rule(By(check_port_range)))
    time_budget_s: float | None = bounded(None, above=0)
    preflight: bool = True
    """Refuse what the memory model says cannot fit, before anything starts."""
    memory_stable_samples: int = bounded(3, least=1)
    memory_stable_mib: float = bounded(64.0, above=0)
    memory_timeout_s: float = bounded(30.0, least=0)
    warm_engine: bool = True
    """Start engines by fork from a process that has vLLM imported (CPU) and keep one while its flags do not change."""
    stop_timeout_s: float = bounded(20.0, least=0)
    hang_timeout_s: float = bounded(15.0, least=0)
    """A service that runs, and for so long answers neither its health check nor any request under way, is hung; 0 waits for the requests'
    own time-outs."""
    mps: bool = False
    """Permission to start NVIDIA's MPS daemon for the trials that ask for it (`mps_active_thread_pct`), and to stop it after them."""


@dataclass
class ServiceTarget:
    """A service where it is deployed."""

    unit: str = ""
    """Of systemd, or of the process supervisor."""
    url: str = ruled("", By(check_url))
    key_env: str = ""
    """The variable that holds its key when `promote --apply` probes it; the key itself is never written anywhere."""
    command: list[str] = field(default_factory=list, metadata=rule(Items(By(check_line))))
    """What starts it; empty: this installation's own."""


@dataclass
class PromoteSettings:
    """When a winner may be deployed, where, and what takes it back; `promote` takes none of it from a run's own configuration."""

    device: str = one_of("auto", "auto", "cpu", "cuda")
    """The target's kind of device: `cuda`, `cpu`, or `auto` (this machine's)."""
    metric: str = metrics.VOICE_TURN.at("p95")
    min_gain_pct: float = bounded(10.0, least=0)
    """The winner must be better than the baseline by so much in the metric, and worse in none beyond `confirm.tolerances`."""
    neighbours_mib: float | None = bounded(None, least=0)
    """Memory that others use on the target's device; null: what they use now."""
    neighbours_tolerance_mib: float = bounded(512.0, least=0)
    soak_s: float = bounded(300.0, above=0)
    soak_growth_pct: float = bounded(5.0, least=0)
    """A service's memory may grow by so much during the soak."""
    target: str = one_of("systemd", "systemd", "process")
    """`systemd` or `process` (a plain supervisor)."""
    install_dir: str = ruled("/etc/tune-gpu", By(check_line))
    systemd_dir: str = ruled("/etc/systemd/system", By(check_line))
    served_model_name: str | None = None
    """What the deployed vLLM calls its model; null: the model's own name."""
    vllm: ServiceTarget = field(default_factory=lambda: ServiceTarget("vllm.service", "http://127.0.0.1:8000", "VLLM_API_KEY"))
    whisper: ServiceTarget = field(default_factory=lambda: ServiceTarget("whisper.service", "http://127.0.0.1:8001", "TUNE_GPU_API_KEY"))
    health_deadline_s: float = bounded(300.0, above=0)
    """Both services must answer `/health` so long after the restart."""
    probes: int = bounded(5, least=0)
    """Live voice turns that are then taken, one after another; 0 takes none."""
    probe_max_ratio: float = bounded(2.0, above=0)
    """Their median must stay below so many times what the comparison measured."""

    def conflicts(self, at: str) -> Iterator[str]:
        """Yield each rule that joins several settings and is broken, as a message. Raise UserError for the name of a unit."""
        for name, service in (("vllm", self.vllm), ("whisper", self.whisper)):
            check_unit(f"{at}{name}.unit", service.unit, of_systemd=self.target == "systemd")
        if self.vllm.unit == self.whisper.unit:
            yield f"{at}vllm.unit={self.vllm.unit}: Whisper's unit as well. Give each service a unit of its own."
