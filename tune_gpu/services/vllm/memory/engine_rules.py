"""Differences between vLLM's versions: defaults of flags, allocations of the profiling run, deductions from the KV cache.

Facts from vLLM's source: `engine/arg_utils.py` (defaults by card and by API), `config/scheduler.py` (V0's default of a batch is the whole
context), `worker/worker.py` (V0) and `v1/worker/gpu_worker.py` (V1): the share, less weights, non-torch memory and the peak of a profiling
run; `v1/worker/cpu_worker.py` (the CPU), `v1/core/kv_cache_utils.py` (blocks).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tune_gpu.services.vllm.memory.arithmetic import Number, where

DEFAULT_VERSION = "0.32.0"
"""Version that is assumed if none is given: the one that this program is installed with."""
A100_GIB, BLACKWELL_GIB = 70.0, 160.0
_LAST_PATCH = 99
"""Patch number of a version with only two numbers: the last of its series."""


def version_number(version: str | None) -> tuple[int, int, int] | None:
    """Return the first three numbers of a version (two suffice), or None."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", version or "")
    return (int(found[1]), int(found[2]), int(found[3]) if found[3] else _LAST_PATCH) if found else None


@dataclass(frozen=True)
class EngineRules:
    """Rules of one version of vLLM on one kind of device."""

    version: tuple[int, ...]
    v1: bool
    cpu: bool = False
    warm: bool = False
    """True if the engine is forked from a process that has imported vLLM (CPU only)."""

    @classmethod
    def of(cls, version: str | None, *, cpu: bool = False, v1: bool | None = None, warm: bool = False) -> EngineRules:
        """Return the rules of a version (`0.8.5`, `0.14.0rc2.dev348`, `0.8.4/0.8.5`). The engine was V0 before 0.8 unless `v1` says
        otherwise."""
        number = version_number(version) or version_number(DEFAULT_VERSION) or (0, 0, 0)
        return cls(number, (number >= (0, 8)) if v1 is None else v1, cpu, warm)

    @property
    def default_share(self) -> float:
        """Return the default of `gpu_memory_utilization`."""
        return 0.92 if self.version >= (0, 20) else 0.9

    @property
    def block_size(self) -> int:
        """Return the default number of tokens in a block."""
        return 128 if self.cpu else 16

    @property
    def sampler_bytes_per_logit(self) -> float:
        """Return the peak bytes for each of `max_num_seqs` x vocabulary logits when the profiling run samples with top-k and top-p.

        With a sort (before 0.17): the logits in 16 and in 32 bits (2 + 4), sorted values and their int64 indices (4 + 8), the radix sort's
        two buffers of (index, segment) pairs (8 + 8) and its keys (4). Since 0.17 a kernel filters in place: the logits in 16 and in 32
        bits, the float32 probabilities and as much exponential noise (`random_sample`). FlashInfer's sampler, the default since 0.21,
        takes as many, and is followed by the former in the profiling run.
        """
        return 14.0 if self.version >= (0, 17) else 38.0

    @property
    def filters_in_a_kernel(self) -> bool:
        """Return True if top-k and top-p are applied by a kernel of one buffer for each multiprocessor (`topk_topp_triton.py`)."""
        return self.v1 and not self.cpu and self.version >= (0, 17)

    @property
    def profiles_all_logits(self) -> bool:
        """Return True for the first V1 (before 0.7.3), which profiled the logits of every token of the batch and no sampler."""
        return self.v1 and self.version < (0, 8)

    @property
    def samples_after_a_chunk(self) -> bool:
        """Return True if the profiling run samples when prompts are chunked.

        V0 of 0.6 and 0.7 did not (0.06 to 0.22 GiB in logs of contexts above 32768: vllm#10517, vllm#13061, an A10G with Llama 8B). V0 of
        0.8 did (1.39 and 1.45 GiB in logs of 0.8.5).
        """
        return self.v1 or not (0, 6) <= self.version < (0, 8)

    @property
    def graphs_are_reserved(self) -> bool:
        """Return True if the estimate for CUDA graphs is deducted from the KV cache by default (`VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS`).

        vLLM's own message says "since v0.21.0", but the source of 0.20.0 has the new default.
        """
        return self.v1 and self.version >= (0, 20)

    @property
    def graphs_can_be_estimated(self) -> bool:
        """Return True if vLLM has the estimate, by default or by its variable."""
        return self.v1 and self.version >= (0, 18)

    @property
    def counts_all_consumed(self) -> bool:
        """Return True if everything that became used on the card is deducted (`MemoryProfilingResult.total_consumed`, since 0.27).

        Earlier versions deducted weights and what torch does not hold, and so left out the buffers that the runner makes before the weights,
        and what torch's allocator keeps between its blocks.
        """
        return self.v1 and self.version >= (0, 27)

    @property
    def compiles_in_profile(self) -> bool:
        """Return True if the peak of a first `torch.compile` counts as activation (vllm#54122, vllm#54383).

        Since 0.12 the compiler measures candidate kernels (`benchmark_combo_kernel`), which allocates their buffers on the card.
        """
        return self.v1 and not self.cpu and self.version >= (0, 12)

    @property
    def graph_piece_mib(self) -> float:
        """Return the driver memory of one captured piece of a graph (logs of eight models: 0.55 to 0.93 MiB before 0.11, 0.29 to 0.33
        since)."""
        return 0.3 if self.version >= (0, 11) else 0.75

    @property
    def null_block(self) -> bool:
        """Return True if one block is set aside in the check that a whole context fits."""
        return self.version >= (0, 25)

    @property
    def group_aware(self) -> bool:
        """Return True if the log counts the tokens of several block tables as concurrency x context (not yet in 0.20.0: a log of
        Qwen3.5)."""
        return self.v1 and self.version >= (0, 21)

    @property
    def batches_in_flight(self) -> int:
        """Return how many batches a window is kept for. With asynchronous scheduling there are two (vllm#47728, July 2026)."""
        return 2 if self.version >= (0, 26) and not self.cpu else 1

    @property
    def hybrid_prefix_caching(self) -> bool:
        """Return True if models that keep states cache prefixes by default, and so keep two states per sequence (vllm#50991, August 2026)."""
        return self.version >= (0, 28)

    @property
    def hybrid_manager(self) -> bool:
        """Return True if layers of several attention types form groups of equal size (the last one padded)."""
        return self.v1 and self.version >= (0, 9)

    @property
    def checkpoint_sets_the_cache(self) -> bool:
        """Return True if a checkpoint with scales for a quantised cache gets one without a flag (vllm#30785 and vllm#30141, December
        2025 and January 2026)."""
        return self.version >= (0, 15)

    @property
    def nccl_is_counted(self) -> bool:
        """Return True if NCCL's buffers are allocated after the memory is first read, and so are deducted from the share."""
        return self.version < (0, 12)

    @property
    def context_is_counted(self) -> bool:
        """Return True if all memory on the card that is not torch's is deducted from the share, including CUDA's own context and the
        neighbours.

        V0 did so until 0.6.5 (`worker.py`: the use that `mem_get_info` reports, less torch's). Later versions deduct only what was added
        since the start.
        """
        return not self.v1 and self.version < (0, 6, 6)

    @property
    def latent_attention(self) -> bool:
        """Return True if latent vectors are cached as such. Before 0.7.1 every head's keys and values were, each padded to 256 numbers."""
        return self.v1 or self.version >= (0, 7, 1)

    @property
    def mla_alignment_bytes(self) -> int:
        """Return the alignment of a token's latent vector: V0 pads it to a multiple of 256 bytes (0.7 and later,
        `VLLM_CUDA_MEM_ALIGN_KV_CACHE`)."""
        return 256 if not self.v1 else 1

    def default_max_num_seqs(self, total_gib: float, name: str, world: int, shares_host_memory: bool = False) -> int:
        """Return the default of `max_num_seqs`. The first V1 used 1024 on every card; since 0.8.4 only large cards do (vllm#16158)."""
        if self.cpu:
            return 128 * world
        if self.v1 and self.version < (0, 8, 4):
            return 1024
        return 1024 if self.v1 and self._large(total_gib, name, shares_host_memory) else 256

    def default_batch(self, total_gib: float, name: str, world: int, shares_host_memory: bool = False) -> int:
        """Return the default tokens of a batch with chunked prefill (of the API server, not of the class LLM)."""
        if self.cpu:
            return 2048 * world
        if not self.v1:
            return 2048 if self.version >= (0, 6) else 512
        if self.version >= (0, 22) and total_gib >= BLACKWELL_GIB and self._large(total_gib, name, shares_host_memory):
            return 16384
        return 8192 if self.version >= (0, 8) and self._large(total_gib, name, shares_host_memory) else 2048

    def _large(self, total_gib: float, name: str, shares_host_memory: bool) -> bool:
        """Return True if the card gets the larger defaults.

        Before 0.8 no card does, in 0.8 H100 and H200 by their names, later cards by memory as NVML reports it (except the A100, and cards
        whose memory NVML does not report).
        """
        if self.version < (0, 9):
            return self.version >= (0, 8) and re.search(r"h[12]00", name.lower()) is not None
        return total_gib >= A100_GIB and "a100" not in name.lower() and not shares_host_memory

    def chunked_prefill_default(self, max_model_len: Number, unsuited: bool) -> Number:
        """Return the default: V1 always; V0 for contexts above 32768, but not for multimodal models and multi-head latent attention
        (`unsuited`)."""
        return where(max_model_len > 32768, not unsuited, False) if not self.v1 else True
