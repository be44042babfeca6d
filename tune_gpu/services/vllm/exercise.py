"""Which traffic the flags of `vllm serve` need in order to matter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tune_gpu.services.exercise import Unexercised, Use, greatest, least

_CACHE_SIZE = (
    "gpu_memory_utilization", "kv_cache_memory_bytes", "extra_args.kv_cache_memory_bytes", "extra_args.num_gpu_blocks_override", "extra_args.kv_offloading_size", "extra_args.swap_space",
    "extra_args.cpu_offload_gb",
)  # fmt: skip
_STEP_SIZE = ("max_num_batched_tokens", "enable_chunked_prefill", "extra_args.max_num_partial_prefills", "extra_args.long_prefill_token_threshold")
_ROOMY_PCT = 50.0
"""Below this use of the cache nothing is evicted or preempted, with room for peaks between two readings."""


def unexercised(uses: Sequence[Use]) -> tuple[Unexercised, ...]:
    """Return the flags that could not matter under this traffic."""
    rules = (_cache(uses), _context(uses), _sequences(uses), _steps(uses), _prefixes(uses))
    return tuple(found for rule in rules for found in rule)


def _cache(uses: Sequence[Use]) -> Iterator[Unexercised]:
    """Yield the flags of the cache's size, which matter once prefixes are evicted or requests are preempted."""
    used, tokens = greatest([use.cache_use_pct for use in uses]), least([use.cache_tokens for use in uses])
    if used is None or used * max(1.0, *(use.callers for use in uses)) >= _ROOMY_PCT or any(use.preemptions for use in uses):
        return
    why = f"working set {used:.2g} % of the KV cache" + ("" if tokens is None else f" ({tokens:,.0f} tokens or more)")
    yield Unexercised(_CACHE_SIZE, why)
    yield Unexercised(("kv_cache_dtype", "block_size"), why, "the size of the cache")


def _context(uses: Sequence[Use]) -> Iterator[Unexercised]:
    """Yield the length of the context, which matters once a prompt and its answer reach it."""
    longest, limit = greatest([use.longest_context_tokens for use in uses]), least([use.settings.max_model_len for use in uses])
    if longest is not None and limit is not None and longest <= limit:
        yield Unexercised(("max_model_len",), f"longest prompt with its answer {longest:,.0f} of {limit:,.0f} tokens")


def _sequences(uses: Sequence[Use]) -> Iterator[Unexercised]:
    """Yield the number of sequences, which matters once a request waits for one to end."""
    most, limit = greatest([use.requests_at_once for use in uses]), least([use.settings.max_num_seqs for use in uses])
    if most is not None and limit is not None and most <= limit:
        yield Unexercised(("max_num_seqs",), f"at most {most:.0f} of {limit:.0f} sequences at once")


def _steps(uses: Sequence[Use]) -> Iterator[Unexercised]:
    """Yield the flags of a step's size, which matter once the prompts that wait do not fit into one."""
    most, longest = greatest([use.requests_at_once for use in uses]), greatest([use.longest_context_tokens for use in uses])
    limit = least([use.settings.max_num_batched_tokens for use in uses])
    if most is not None and longest is not None and limit is not None and most * longest <= limit:
        yield Unexercised(_STEP_SIZE, f"at most {most * longest:,.0f} of {limit:,.0f} tokens in a step")


def _prefixes(uses: Sequence[Use]) -> Iterator[Unexercised]:
    """Yield prefix caching, which matters once a prompt begins as an earlier one did."""
    hits = [use.prefix_hit_pct for use in uses if use.prefix_hit_pct is not None]
    if hits and not any(hits):
        yield Unexercised(("enable_prefix_caching", "extra_args.prefix_caching_hash_algo"), "0 prefix hits")
