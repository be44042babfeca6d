"""What vLLM's own parser makes of flags that need no trust, and what that parser takes that must not be among them."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from tests.namespaces import CLASS, ask
from tune_gpu.common.errors import UserError
from tune_gpu.config.foreign import needs_trust
from tune_gpu.config.loader import load_config
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.experiment.space_check import check_space
from tune_gpu.services.vllm.options import Kind, Role, options, own_options
from tune_gpu.services.vllm.server import VllmServer
from tune_gpu.services.vllm.trust import _BELOW, _WORDS

pytestmark = pytest.mark.services
HOSTILE: list[Any] = [
    "--host", "--host=0.0.0.0", "-tp", ["--host", "0.0.0.0"], [["--host", "0.0.0.0"]], "0.0.0.0", "/etc/passwd", "./evil.py", "~/evil", "evil.module.Class",
    "evil:Class", "http://example.org", "s3://bucket", "file:///etc", "evil", "custom", "CUSTOM", "custom_class", "lmcache", "a b", "x\n--host\n0.0.0.0", "@evil",
    '{"model": "evil/x"}', '["evil.Class"]', {"model": "evil/x"}, {"--host": "0.0.0.0"}, {"method": "custom_class", "model": "evil.Class"}, {"backend": "evil.Class"},
    {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3}, {"cudagraph_mode": "NONE"}, {"image": 0}, ["a", "/b"], ["FLASH_ATTN"],
    "FLASH_ATTN", "auto", "ngram", True, False, 1, 3, 0.5, "4G", "0.5",
]  # fmt: skip
PARTS = [".model", ".method", ".backend", ".mode", ".cudagraph_mode", ".image", ".a.b", ".custom_ops+", ".num_speculative_tokens"]
MEANS_MORE = re.compile(r"plugin|module|class|path|file\b|folder|directory|\bdir\b|url|uri|endpoint|address|\bport\b|host\b|connector|import", re.IGNORECASE)


def tried() -> list[dict[str, Any]]:
    """Every option, spelled in several ways, with every hostile value; and some of them together."""
    draw = random.Random(5)
    names = sorted({*options(), *(f"no-{name}" for name, each in options().items() if each.kind is Kind.SWITCH)})
    spelled = [form for name in names for form in (name, name.replace("-", "_"), name[:-1], name[:4], *(name + part for part in PARTS))]
    alone = [{name: value} for name in names for value in HOSTILE] + [{name: draw.choice(HOSTILE)} for name in spelled]
    return alone + [{draw.choice(spelled): draw.choice(HOSTILE) for _ in range(draw.randint(2, 5))} for _ in range(3_000)]


def passed(extra: dict[str, Any], base: ExperimentConfig) -> bool:
    """Whether a space that is not the user's own may have these flags."""
    base.services.vllm.extra_args = extra
    if needs_trust(base, {}):
        return False
    try:
        check_space(base)
    except UserError:
        return False
    return True


@pytest.fixture(scope="module")
def read() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What passes the checks, with what vLLM's parser changed by it; the parser may refuse."""
    base = load_config("spica_gpu_allocation", ["parameters={a: {target: whisper.beam_size, values: [1]}}", "baseline={}"], "cpu")
    base.baseline = {}
    base.parameters = {name: spec for name, spec in base.parameters.items() if name == "a"}
    taken = [extra for extra in tried() if passed(extra, base)]
    queries = []
    for extra in [{}, *taken]:
        base.services.vllm.extra_args = extra
        server = VllmServer(base.services.vllm, device="cpu", port_range=[1, 1], choose_port=lambda _range: 1)
        server.served_model_name = "served"
        queries.append({"argv": server.arguments()})
    plain, *found = ask(queries)
    assert not isinstance(plain, str), plain
    assert plain["host"] == "127.0.0.1"
    return [
        (extra, {name: value for name, value in each.items() if value != plain[name]} | {"host": each["host"], "port": each["port"], "model": each["model"] == plain["model"]})
        for extra, each in zip(taken, found, strict=True) if not isinstance(each, str)
    ]  # fmt: skip


def texts(value: Any) -> list[str]:
    inner = [each for key, each in value.items() if key != CLASS] if isinstance(value, dict) else value if isinstance(value, list) else None
    return [text for each in inner for text in texts(each)] if inner is not None else [value] if isinstance(value, str) else []


def test_no_foreign_flags_reach_an_address_code_or_files(read: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Whatever passes the checks, vLLM's parser sees nothing but listed options, plain values and the loopback address."""
    assert len(read) > 500
    listed = {name.replace("-", "_") for name, each in options().items() if each.role is Role.PLAIN} | {name.replace("-", "_") for name in _BELOW}
    listed.add("api_server_count")  # 1 beside data_parallel_size
    for extra, changed in read:
        assert (changed.pop("host"), changed.pop("port"), changed.pop("model")) == ("127.0.0.1", 1, True), extra
        assert set(changed) <= listed, extra
        assert changed.get("api_server_count", 1) == 1
        for name, value in changed.items():
            if name != "compilation_config":  # vLLM fills it with names of its own
                assert all(re.fullmatch(r"[\w+-]*|-?\d[\d.]*\w{0,3}", text, re.ASCII) for text in texts(value)), (extra, name, value)
            assert not {"evil", "/etc", "0.0.0.0"} & {part for text in texts(value) for part in (text, text[:4]) if name not in FREE}, (extra, name)


FREE = {"response_role", "fingerprint_value", "cohere_format", "tool_call_parser", "reasoning_parser", "cpu_offload_params", "offload_params", "lora_target_modules",
        "sleep_preserve_parameter_names", "kv_cache_dtype_skip_layers", "pt_load_map_location", "quantization", "mamba_backend", "show_hidden_metrics_for_version",
        "safetensors_load_strategy"}  # fmt: skip
"""Options that take any word: names of layers, parameters, roles, or of what is registered in vLLM; a word names no file and no module."""


@pytest.fixture
def actions(enumerated: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The options of the installed parser with their types and choices."""
    return dict(enumerated["options"])


def test_every_option_of_the_installed_parser_has_a_role(actions: dict[str, dict[str, Any]]) -> None:
    assert set(actions) == set(options())


def test_a_plain_option_takes_numbers_switches_or_reviewed_words(actions: dict[str, dict[str, Any]]) -> None:
    numbers = {"int", "float", "human_readable_int", "human_readable_int_or_auto"}
    free = {
        name for name, row in actions.items()
        if options()[name].role is Role.PLAIN and not (row["choices"] or row["kind"] in ("on", "switch") or row["type"] in numbers)
    }  # fmt: skip
    optional_numbers = {
        "max-log-len", "distributed-timeout-seconds", "cpu-distributed-timeout-seconds", "max-parallel-loading-workers", "kv-cache-memory-bytes",
        "num-gpu-blocks-override", "prefix-cache-retention-interval", "mamba-block-size", "prefix-match-unit", "kv-offloading-size", "video-pruning-rate",
        "max-cpu-loras", "max-lora-cls-labels", "max-num-scheduled-tokens", "max-num-active-seqs", "max-num-queued-reqs", "max-num-queued-tokens",
        "optimization-level",
    }  # fmt: skip
    words = {name.replace("_", "-") for name in FREE} | set(_WORDS) | {"load-format"}
    assert free - own_options() <= optional_numbers | words


def test_an_option_whose_name_means_more_than_tuning_is_not_plain(actions: dict[str, dict[str, Any]]) -> None:
    named = {name for name in actions if MEANS_MORE.search(name.replace("-", " ")) or name.endswith(("-cls", "-path", "-plugin", "-file", "-dir", "-url"))}
    assert len(named) > 15
    assert {name for name in named if options()[name].role is Role.PLAIN} <= PLAIN_IN_SPITE_OF_THEIR_NAMES


PLAIN_IN_SPITE_OF_THEIR_NAMES = {"enable-tower-connector-lora", "lora-target-modules"}
"""A switch, and names of layers within the model."""
