"""Convert a GGUF file of a small Llama into a Hugging Face folder, because vLLM loads no GGUF.

The weights are dequantised by the `gguf` package and rounded to bfloat16, the type in which such models are published. llama.cpp rotates
neighbouring pairs of a head's values, and Hugging Face pairs from its two halves: the rows of queries and keys stand in another order.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer

REVISION = 1
"""Raise it when the converted folder changes, so that one from an earlier version of this program is not used."""
_CONTROL = 3
"""`token_type` of a special token."""
_WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_IN_A_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Names of the tensors: llama.cpp's -> Hugging Face's."""


def convert_gguf(source: Path, folder: Path) -> Path:
    """Write weights, tokenizer, chat template and configuration into an existing folder, and return it.

    Raises:
        ValueError: the file holds another architecture, another tokenizer, or a tensor that is unknown here.
    """
    from gguf import GGUFReader, dequantize
    from safetensors.torch import save_file
    from torch import bfloat16, from_numpy

    reader = GGUFReader(source)
    facts = {name: field.contents() for name, field in reader.fields.items()}
    config = model_config(facts, tied=not any(tensor.name == "output.weight" for tensor in reader.tensors))
    tokenizer = make_tokenizer(facts)
    weights = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        if heads := {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}.get(tensor.name.split(".")[-2]):
            values = in_halves(values, heads)
        weights[hugging_face_name(tensor.name)] = from_numpy(np.array(values, order="C")).to(bfloat16)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {name: config[f"{name}_token_id"] for name in ("bos", "eos", "pad")}
    spoken = {f"{name}_token": tokenizer.id_to_token(number) for name, number in tokens.items()}
    files = {
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "chat_template": facts["tokenizer.chat_template"],
            "model_max_length": config["max_position_embeddings"],
            "clean_up_tokenization_spaces": False,
            **spoken,
        },
        "generation_config.json": {f"{name}_token_id": number for name, number in tokens.items()},
        "config.json": config,
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return folder


def hugging_face_name(name: str) -> str:
    """Return Hugging Face's name of a tensor of llama.cpp's. Raise ValueError for one that such a model does not have."""
    if found := re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name):
        layer, part = found.groups()
        if part in _IN_A_LAYER:
            return f"model.layers.{layer}.{_IN_A_LAYER[part]}.weight"
    elif (part := name.removesuffix(".weight")) in _WHOLE:
        return f"{_WHOLE[part]}.weight"
    raise ValueError(f"tensor {name}: unknown in a Llama without biases and scaled rotations. Convert another file.")


def in_halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Return the rows of queries or keys in Hugging Face's order: of each head first the even ones, then the odd ones."""
    return rows.reshape(heads, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def model_config(facts: dict[str, Any], *, tied: bool) -> dict[str, Any]:
    """Return the contents of `config.json`, from the metadata. `tied`: the output layer is the embedding."""
    if facts["general.architecture"] != "llama":
        raise ValueError(f"architecture {facts['general.architecture']}: only llama is converted. Convert another file.")
    llama = {name.removeprefix("llama."): value for name, value in facts.items()}
    special = {name: facts[f"tokenizer.ggml.{key}_token_id"] for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": llama["embedding_length"],
        "intermediate_size": llama["feed_forward_length"],
        "num_hidden_layers": llama["block_count"],
        "num_attention_heads": llama["attention.head_count"],
        "num_key_value_heads": llama["attention.head_count_kv"],
        "head_dim": llama["rope.dimension_count"],
        "vocab_size": llama["vocab_size"],
        "max_position_embeddings": llama["context_length"],
        "rms_norm_eps": float(str(np.float32(llama["attention.layer_norm_rms_epsilon"]))),  # 1e-05, as it was before it became 32 bits
        "rope_theta": llama["rope.freq_base"],
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        **{f"{name}_token_id": number for name, number in special.items()},
    }


def make_tokenizer(facts: dict[str, Any]) -> Tokenizer:
    """Return the tokenizer: pairs of bytes that merge, with every digit alone (`smollm` in llama.cpp)."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    kind = facts["tokenizer.ggml.model"], facts["tokenizer.ggml.pre"]
    if kind != ("gpt2", "smollm"):
        raise ValueError(f"tokenizer {'/'.join(kind)}: only gpt2/smollm is converted. Convert another file.")
    tokens = facts["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ")) for pair in facts["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, type_ in zip(tokens, facts["tokenizer.ggml.token_type"], strict=True) if type_ == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer
