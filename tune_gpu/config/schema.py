"""Structured configs: what a user may set, merged and checked by OmegaConf.

A run's configuration is one `ExperimentConfig`: the defaults below, then a YAML of `search_spaces/`, then that YAML's overlay for
the device (`devices: {cpu: …}`), then `key=value` overrides from the command line. An unknown key is an error that names the nearest
known one. Units stand in the names (`_s`, `_ms`, `_mib`). A number's limits stand beside it (`bounded`), and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tune_gpu import metrics
from tune_gpu.config.bounds import bounded


@dataclass
class VllmSettings:
    """The flags of a candidate's vLLM server. `None` leaves a flag to vLLM's own default."""

    model: str = "demo-llm"
    """A folder, `demo-llm` (a toy made by this program) or a hub name."""
    gpu_memory_utilization: float = bounded(0.5, above=0, most=1)
    """Share of the device's memory (on the CPU: of the NUMA node's), in (0, 1]."""
    max_model_len: int | str | None = bounded(None, above=0)
    """Tokens; `auto` lets vLLM take the longest context that fits. As in vLLM's own flags, 32k is 32,000 and 32K is 32,768."""
    max_num_seqs: int | None = bounded(None, above=0)
    max_num_batched_tokens: int | None = bounded(None, above=0)
    dtype: str = "auto"
    kv_cache_dtype: str = "auto"
    quantization: str | None = None
    block_size: int | None = bounded(None, above=0)
    tensor_parallel_size: int = bounded(1, least=1)
    enforce_eager: bool = False
    enable_prefix_caching: bool | None = None
    enable_chunked_prefill: bool | None = None
    load_format: str = "auto"
    """`dummy` draws random weights of the true shape: speed and memory depend on shapes, not on values."""
    cpu_cores: str | None = None
    """CPU only: the cores of the engine, as in `VLLM_CPU_OMP_THREADS_BIND` and taskset ("0", "0-1", "0,2")."""
    mps_active_thread_pct: float | None = bounded(None, above=0, most=100)
    """Cards only, with `run.mps`: share of the multiprocessors that it may use (CUDA_MPS_ACTIVE_THREAD_PERCENTAGE); null or 100 leaves MPS out."""
    extra_args: dict[str, Any] = field(default_factory=dict)
    """Any further flag of `vllm serve`, by its long name without dashes in front."""
    env: dict[str, str] = field(default_factory=dict)
    start_timeout_s: float = bounded(300.0, above=0)


@dataclass
class WhisperSettings:
    """How faster-whisper is loaded and asked."""

    model: str = "base"
    """A size (`tiny.en`, `base` …), a folder in CTranslate2's form, or a hub name."""
    compute_type: str = "default"
    beam_size: int = bounded(1, above=0)
    cpu_threads: int = bounded(1, least=0)
    num_workers: int = bounded(1, above=0)
    """Transcriptions at the same time in one model (CTranslate2's `num_workers`)."""
    language: str = "en"
    """Whisper's code of the language it transcribes ("ja", not "jp"; "no" needs its quotes in YAML)."""
    vad_filter: bool = False
    condition_on_previous_text: bool = False
    cpu_cores: str | None = None
    """CPU only: the cores that the service may use."""
    batch_size: int = bounded(1, above=0)
    """Above 1 the pieces of a long utterance are decoded together, up to so many (faster-whisper's batched pipeline)."""
    mps_active_thread_pct: float | None = bounded(None, above=0, most=100)
    """As vLLM's."""
    env: dict[str, str] = field(default_factory=dict)
    start_timeout_s: float = bounded(120.0, above=0)


@dataclass
class Services:
    """What runs while nothing is being tuned: a candidate's parameters are written over these."""

    vllm: VllmSettings = field(default_factory=VllmSettings)
    whisper: WhisperSettings = field(default_factory=WhisperSettings)


@dataclass
class ParameterSpec:
    """One knob: either `values`, or a range (`low`, `high`; `step` or `integer`: only in such steps; `log`: even in the logarithm)."""

    target: str
    """Where its value goes: a dotted path into `Services`, `vllm.gpu_memory_utilization` say."""
    values: list[Any] | None = None
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    integer: bool = False
    kind: str = "ordinal"
    """`ordinal`: the order of `values` means something (0.45 lies next to 0.50); `categorical`: it does not."""
    when: dict[str, list[Any]] = field(default_factory=dict)
    """The knob exists only where each named parameter has one of these values."""


@dataclass
class SearchSettings:
    """R-Zero. The sizes are the classic ones: 2 + 4 + 4 + 4 evaluations in 4 generations."""

    algorithm: str = "rzero"
    """`rzero`: the tournament, with proposals that a surrogate has screened. `classic`: R-Zero as it was."""
    asynchronous: bool | None = None
    """Propose each candidate from all results that are in, instead of generations at once (`rzero` only; null: unless candidates are
    ordered by the engine that they share)."""
    initial: int = bounded(2, least=1, most=10_000)
    tournament_size: int = bounded(4, least=2, most=10_000)
    survivors: int = bounded(2, least=1)
    elites: int = bounded(1, least=0, most=1)
    fresh: int = bounded(1, least=1)
    generations: int = bounded(4, least=1)
    recheck: int = bounded(0, least=0)
    """In the end a configuration that would win by a single evaluation is measured again, at most so many times, before the winner is named."""
    objectives: dict[str, str] = field(default_factory=dict)
    """Pareto mode: metric -> `max` or `min`. Survivors are then chosen by fronts and crowding, `rzero` proposes for every part of the front,
    and the summary holds the front; the winner stays the one with the best fitness."""
    racing: bool = False
    """Stop a candidate between windows as soon as as many others as survive are shown to be better. Needs `workload.windows` of 3 or more
    to save anything."""
    window_budget: int | None = bounded(None, least=1)
    """With `racing`: once so many windows have been measured in all, nobody gets more than two."""
    seed: int = bounded(0, least=0)


@dataclass
class ObjectiveSettings:
    """How a measurement becomes one number; see `evaluation/objective.py` for the formulas."""

    weights: dict[str, float] = field(default_factory=dict)
    """Term -> weight, of `stt_latency`, `llm_latency`, `capacity`, `stability`, `efficiency`, `wer`. They are divided by their sum."""
    stt_latency_target_ms: float = bounded(500.0, above=0)
    llm_latency_target_ms: float = bounded(1000.0, above=0)
    ttft_target_ms: float = bounded(500.0, above=0)
    latency_percentile: int = 95
    capacity_target_sessions: float = bounded(4.0, above=0)
    utilization_target_pct: float = bounded(70.0, above=0)
    wer_target: float = bounded(0.10, above=0)
    max_wer: float | None = bounded(None, least=0)
    max_failed_requests_pct: float | None = bounded(5.0, least=0)
    """Constraint: above it a candidate violates, by the amount it is above."""


@dataclass
class AudioSettings:
    """The utterances that are spoken to the assistant."""

    source: str = "samples"
    """`samples` (English clips of the package pytest-audioeval) or a folder of `NAME.wav` beside `NAME.txt`."""
    noise_snr_db: list[float | None] = field(default_factory=lambda: [None])
    """Each clip is also spoken in white noise at these signal-to-noise ratios; null is the clean clip."""
    language: str | None = None
    """Whisper's code of the language that is spoken in them, by whose rules errors are counted; null: English for `samples`, else `services.whisper.language`."""
    max_utterance_s: float = bounded(30.0, above=0)


@dataclass
class WorkloadSettings:
    """The traffic of one evaluation."""

    audio: AudioSettings = field(default_factory=AudioSettings)
    turn_rate_per_s: float = bounded(0.5, above=0)
    """Mean arrival rate of voice turns (Poisson, open loop)."""
    background_rate_per_s: float = bounded(0.0, least=0)
    """Mean arrival rate of LLM requests that come from elsewhere (Poisson, open loop)."""
    background_prompt_tokens: int = bounded(128, least=1)
    max_tokens: int = bounded(32, above=0)
    """Length of each answer (the end-of-text token is ignored, so that every answer has the same length)."""
    warmup_turns: int = bounded(2, least=0)
    window_s: float = bounded(10.0, above=0)
    windows: int = bounded(1, above=0)
    solo_window_s: float = bounded(0.0, least=0)
    """Above 0: each service is also measured alone, for the interference ratio."""
    request_timeout_s: float = bounded(30.0, above=0)
    max_inflight_turns: int = bounded(64, above=0)
    capacity_max_sessions: int = bounded(8, above=0)
    """The ramp of `concurrent_capacity` ends here."""
    capacity_step_s: float = bounded(3.0, least=0)
    """How long each step of the ramp is held; 0 leaves capacity out."""
    session_pause_s: float = bounded(0.5, least=0)
    """A caller's mean pause between an answer and the next utterance, in the ramp."""
    capacity_hopeless_load: float = bounded(1.5, above=0)
    """A step this far above its targets is not held a second time."""


@dataclass
class TelemetrySettings:
    """When a window of load counts. What was disturbed is measured again; see `telemetry/verdicts.py`."""

    max_invalid_windows: int = bounded(2, least=0)
    """So many windows of one evaluation may be measured again; one more, and it is `measurement_invalid`."""
    max_throttled_share: float = bounded(0.1, above=0, most=1)
    """Of the readings in which heat or power may hold the clocks down."""
    power_cap_invalidates: bool = True
    """`false` for a card that always runs at its power cap: only heat and falling clocks then disturb a window."""
    max_clock_fall_share: float = bounded(0.15, above=0, most=1)
    """How far the clock under load may fall within a window, and below that of the windows before."""


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
    runtime_env: dict[str, Any] = field(default_factory=dict)
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
    port_range: list[int] = field(default_factory=lambda: [20000, 29999])
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
class ConfirmSettings:
    """How differences are shown: `tune-gpu compare`, and the end of every run. Arms are deployed in turn, round after round, under the same
    traffic; `tune_gpu/compare/` has the statistics."""

    enabled: bool = True
    """Confirm the last generation's best before the run names its winner."""
    metric: str = metrics.FITNESS.name
    """What the winner must be better in than the baseline to be `confirmed`."""
    candidates: int = bounded(2, least=1)
    """How many of the last generation's best compete for it, the best of all counted."""
    confidence: float = bounded(0.95, least=0.5, below=1)
    """Per metric; the looks at a growing comparison share what is left to 1."""
    min_rounds: int = bounded(3, least=2)
    max_rounds: int = bounded(12, most=500)
    budget_s: float = bounded(600.0, least=0)
    """A run's confirmation ends here, with a verdict or without (a command's `--budget-s` is its own)."""
    windows: int | None = bounded(None, least=1)
    """Of one deployment; null: `workload.windows`."""
    window_s: float | None = bounded(None, above=0)
    capacity: bool = True
    """Also find the capacity in every deployment (the fitness wants it, unless its weight is 0)."""
    tolerances: dict[str, float] = field(default_factory=metrics.tolerances)
    """Metric -> a difference that does not matter: per cent for latencies, else in the metric's own unit."""


@dataclass
class ServiceTarget:
    """A service where it is deployed."""

    unit: str = ""
    """Of systemd, or of the process supervisor."""
    url: str = ""
    key_env: str = ""
    """The variable that holds its key when `promote --apply` probes it; the key itself is never written anywhere."""
    command: list[str] = field(default_factory=list)
    """What starts it; empty: this installation's own."""


@dataclass
class PromoteSettings:
    """When a winner may be deployed, where, and what takes it back; `promote` takes none of it from a run's own configuration."""

    device: str = "auto"
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
    target: str = "systemd"
    """`systemd` or `process` (a plain supervisor)."""
    install_dir: str = "/etc/tune-gpu"
    systemd_dir: str = "/etc/systemd/system"
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


@dataclass
class ExperimentConfig:
    """One experiment: what may vary, what it is judged by, and how it is run."""

    name: str = "experiment"
    description: str = ""
    device: str = "auto"
    """`auto`, `cuda` or `cpu`. `cuda` where there is none is an error, never a quiet measurement on the CPU."""
    parameters: dict[str, ParameterSpec] = field(default_factory=dict)
    baseline: dict[str, Any] = field(default_factory=dict)
    services: Services = field(default_factory=Services)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    workload: WorkloadSettings = field(default_factory=WorkloadSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    confirm: ConfirmSettings = field(default_factory=ConfirmSettings)
    promote: PromoteSettings = field(default_factory=PromoteSettings)
    ray: RaySettings = field(default_factory=RaySettings)
    run: RunSettings = field(default_factory=RunSettings)
