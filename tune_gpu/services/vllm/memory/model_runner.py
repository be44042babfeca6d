"""Which of vLLM's two model runners executes a model, and what the profiling run of that runner allocates.

The second runner (`v1/worker/gpu/model_runner.py`) became the default in steps (`VllmConfig.use_v2_model_runner`). It computes the logits in the
profiling run but does not filter by top-k and top-p, keeps counters of tokens for penalties on the card, and had no estimate of the memory of
CUDA graphs before 0.29.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tune_gpu.services.vllm.memory.architecture import ModelArchitecture
from tune_gpu.services.vllm.memory.arithmetic import Number
from tune_gpu.services.vllm.memory.engine_rules import EngineRules

_FIRST = r"qwen3"
_SECOND = r"qwen3|llama|mistral"
_LISTED = r"qwen3|llama|mistral|qwen2_moe|deepseek_v2|granitemoe"
_EXPERTS = r"qwen2_moe|deepseek_v2|granitemoe"
_EXPERTS_0_28 = _EXPERTS + r"|deepseek_v4"
"""Model types of `DEFAULT_V2_MODEL_RUNNER_ARCHITECTURES` in 0.22, 0.23, 0.24, 0.25 to 0.27 (where dense models need not be listed) and 0.28."""
_NAMES = {"qwen3": r"qwen3(?!\.\d|[.-]?(?:next|vl|omni))", "llama": r"llama(?!-?4)", "mistral": r"mistral"}
"""How a dense model of these types is named. Used only if no `model_type` is known."""
_SWITCHES = {"1": True, "true": True, "0": False, "false": False}


@dataclass(frozen=True)
class ModelRunner:
    """The runner of one model under one version of vLLM."""

    rules: EngineRules
    second: bool
    graphs_are_estimated: bool
    """True if an estimate for CUDA graphs is deducted from the KV cache. Otherwise they take what is left beyond the share."""

    @classmethod
    def of(cls, rules: EngineRules, model: ModelArchitecture, env: Mapping[str, str] | None = None, quantised: bool = False) -> ModelRunner:
        """Return the runner that vLLM chooses, or that `VLLM_USE_V2_MODEL_RUNNER` sets."""
        env = env or {}
        asked = _SWITCHES.get(str(env.get("VLLM_USE_V2_MODEL_RUNNER", "")).lower())
        second = _is_second(rules, model, quantised or model.format is not None) if asked is None else asked
        second = second and rules.v1 and not rules.cpu
        deducted = _SWITCHES.get(str(env.get("VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS", "")), rules.graphs_are_reserved)
        estimated = deducted and rules.graphs_can_be_estimated and (not second or rules.version >= (0, 29))
        return cls(rules, second, estimated)

    def sampler_bytes_per_logit(self, width: int) -> float:
        """Return the peak bytes for each of `max_num_seqs` x vocabulary logits in the profiling run.

        The second runner copied the logits to float32 before 0.28, except in 0.26 (`Sampler.apply_sampling_params`).
        """
        if not self.second:
            return self.rules.sampler_bytes_per_logit
        version = self.rules.version
        copied = version < (0, 26) or (0, 27) <= version < (0, 28)
        return float(width + 4) if copied else float(width)

    def kept_bytes(self, sequences: Number, vocab: int) -> Number:
        """Return the bytes of the counters for penalties (`PenaltiesState`): 32 bits for each token of the vocabulary, and one bit more.

        They exist before the profiling run, and count as consumed since 0.27 (`EngineRules.counts_all_consumed`).
        """
        return sequences * vocab * (4 + 1 / 8) if self.second else 0 * sequences

    @property
    def profiles_the_encoder(self) -> bool:
        """Return True if the profiling run includes the encoders of images and audio. The second runner does so since 0.27."""
        return not self.second or self.rules.version >= (0, 27)


def _is_second(rules: EngineRules, model: ModelArchitecture, quantised: bool) -> bool:
    version = rules.version
    if version >= (0, 29):
        return True
    if version < (0, 22) or model.pooling:
        return False
    if version >= (0, 25):
        if model.states is not None:  # layers with a recurrent state (`is_hybrid`)
            return False
        return not model.experts_per_token or _is_one_of(model, _EXPERTS_0_28 if version >= (0, 28) else _EXPERTS)
    listed = _LISTED if version >= (0, 24) else _SECOND if version >= (0, 23) else _FIRST
    plain = version >= (0, 24) or not (quantised or model.experts_per_token)
    return plain and not model.multimodal and _is_one_of(model, listed)


def _is_one_of(model: ModelArchitecture, types: str) -> bool:
    if model.kind:
        return re.fullmatch(types, model.kind) is not None
    names = [pattern for kind, pattern in _NAMES.items() if re.fullmatch(types, kind)]
    return not model.experts_per_token and any(re.search(pattern, model.name.lower()) for pattern in names)
