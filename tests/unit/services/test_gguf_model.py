"""A GGUF becomes a Hugging Face folder: every weight rounded once, in the right place, and the tokenizer that the model was trained with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.services.vllm.gguf_model import convert_gguf, hugging_face_name, in_halves, make_tokenizer, model_config

gguf = pytest.importorskip("gguf")
HIDDEN, INNER, HEADS, KV_HEADS, LAYERS = 64, 96, 4, 2, 2
SHAPES = {
    "attn_norm": (HIDDEN,), "attn_q": (HIDDEN, HIDDEN), "attn_k": (HIDDEN // 2, HIDDEN), "attn_v": (HIDDEN // 2, HIDDEN), "attn_output": (HIDDEN, HIDDEN),
    "ffn_norm": (HIDDEN,), "ffn_gate": (INNER, HIDDEN), "ffn_up": (INNER, HIDDEN), "ffn_down": (HIDDEN, INNER),
}  # fmt: skip
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["h e", "l l", "he ll", "hell o", "1 2", "Ġ hello"]


def vocabulary() -> list[str]:
    from tokenizers import pre_tokenizers

    return [*CONTROL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]


def facts(**change: Any) -> dict[str, Any]:
    """The metadata of a small model, as a GGUF file has it."""
    tokens = vocabulary()
    return {
        "general.architecture": "llama", "llama.embedding_length": HIDDEN, "llama.feed_forward_length": INNER, "llama.block_count": LAYERS,
        "llama.attention.head_count": HEADS, "llama.attention.head_count_kv": KV_HEADS, "llama.rope.dimension_count": HIDDEN // HEADS,
        "llama.vocab_size": len(tokens), "llama.context_length": 128, "llama.attention.layer_norm_rms_epsilon": float(np.float32(1e-5)),
        "llama.rope.freq_base": 10000.0, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": MERGES, "tokenizer.ggml.token_type": [3] * len(CONTROL) + [1] * (len(tokens) - len(CONTROL)),
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.padding_token_id": 2, "tokenizer.chat_template": "{{ messages }}",
        **change,
    }  # fmt: skip


def write(path: Path, tensors: dict[str, np.ndarray], kind: Any) -> Path:
    """Write a GGUF file: matrices quantised in a kind, the embedding in 8 bits, norms in 32."""
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in facts().items():
        if name != "general.architecture":
            add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, list: writer.add_array}[type(value)]
            add(name, value)
    for name, values in tensors.items():
        own = gguf.GGMLQuantizationType.F32 if values.ndim == 1 else gguf.GGMLQuantizationType.Q8_0 if name.startswith("token") else kind
        writer.add_tensor(name, gguf.quantize(values, own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_tensors(**more: tuple[int, ...]) -> dict[str, np.ndarray]:
    shapes = {f"blk.{layer}.{name}.weight": shape for layer in range(LAYERS) for name, shape in SHAPES.items()}
    shapes |= {"token_embd.weight": (len(vocabulary()), HIDDEN), "output_norm.weight": (HIDDEN,), **more}
    draw = np.random.default_rng(0)
    return {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0", "F16", "F32"])
def test_each_weight_is_what_another_reader_reads_rounded_once(tmp_path: Path, kind: str) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers.integrations.gguf.dequant import dequantize

    source = write(tmp_path / "model.gguf", random_tensors(), gguf.GGMLQuantizationType[kind])
    (tmp_path / "folder").mkdir()
    converted = load_file(convert_gguf(source, tmp_path / "folder") / "model.safetensors")
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(source).tensors}
    assert len(converted) == len(tensors) == 2 + LAYERS * len(SHAPES)
    for name, tensor in tensors.items():
        known = tensor.tensor_type.name in ("Q4_1", "Q8_0")
        read = dequantize(torch.from_numpy(tensor.data.copy()).view(torch.uint8).flatten(), tensor.tensor_type) if known else torch.from_numpy(tensor.data.copy())
        read = read.float().reshape([int(size) for size in tensor.shape[::-1]])
        if heads := {"attn_q": HEADS, "attn_k": KV_HEADS}.get(name.split(".")[-2]):
            pairs = read.reshape(heads, -1, 2, HIDDEN)
            read = torch.cat([pairs[:, :, 0], pairs[:, :, 1]], dim=1).reshape(read.shape)
        assert torch.equal(converted[hugging_face_name(name)], read.to(torch.bfloat16)), name


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_finds_every_weight_of_the_folder(tmp_path: Path, tied: bool) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    more = {} if tied else {"output.weight": (len(vocabulary()), HIDDEN)}
    source = write(tmp_path / "model.gguf", random_tensors(**more), gguf.GGMLQuantizationType.Q4_1)
    (tmp_path / "folder").mkdir()
    folder = convert_gguf(source, tmp_path / "folder")
    model, said = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not said["missing_keys"]
    assert not said["unexpected_keys"]
    assert model.config.tie_word_embeddings is tied
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False)
    with torch.no_grad():
        assert model(torch.tensor([tokenizer.encode("hello 12")])).logits.isfinite().all()


@given(heads=st.integers(1, 6), pairs=st.integers(1, 8), position=st.integers(0, 50), seed=st.integers(0, 99))
def test_a_rotation_of_halves_is_that_of_neighbours_before(heads: int, pairs: int, position: int, seed: int) -> None:
    """Rotate as llama.cpp does, in neighbouring pairs, and as Hugging Face does, in pairs of halves."""
    draw = np.random.default_rng(seed)
    rows, x = draw.normal(size=(heads * 2 * pairs, 3)), draw.normal(size=3)
    turn = np.exp(1j * position * 10000.0 ** (-np.arange(pairs) / pairs))
    neighbours = (rows @ x).reshape(heads, pairs, 2)
    halves = (in_halves(rows, heads) @ x).reshape(heads, 2, pairs)
    before = (neighbours[..., 0] + 1j * neighbours[..., 1]) * turn
    after = (halves[:, 0] + 1j * halves[:, 1]) * turn
    np.testing.assert_allclose(after, before)


def test_digits_stand_alone_and_control_tokens_stay_whole() -> None:
    tokenizer = make_tokenizer(facts())
    assert tokenizer.encode("hello12").tokens == ["hello", "1", "2"], "1 and 2 would merge"
    assert tokenizer.encode("hello hello").tokens == ["hello", "Ġhello"]
    assert tokenizer.encode("<|im_start|>hello<|im_end|>").ids == [1, vocabulary().index("hello"), 2]


@given(st.text())
def test_every_text_comes_back_from_its_tokens(text: str) -> None:
    tokenizer = make_tokenizer(facts())
    text = "".join(text.split("<|"))
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_another_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="architecture qwen2: only llama"):
        model_config(facts(**{"general.architecture": "qwen2"}), tied=True)


@pytest.mark.parametrize(("model", "pre"), [("gpt2", "llama-bpe"), ("llama", "smollm")])
def test_another_tokenizer_is_refused(model: str, pre: str) -> None:
    with pytest.raises(ValueError, match=f"tokenizer {model}/{pre}: only gpt2/smollm"):
        make_tokenizer(facts(**{"tokenizer.ggml.model": model, "tokenizer.ggml.pre": pre}))


@pytest.mark.parametrize("name", ["rope_freqs.weight", "blk.0.attn_q.bias", "blk.0.attn_q_norm.weight", "blk.x.attn_q.weight", "output.bias"])
def test_a_tensor_that_a_llama_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"tensor {name}: unknown"):
        hugging_face_name(name)


def test_the_configuration_has_the_numbers_of_the_file() -> None:
    config = model_config(facts(), tied=True)
    assert config["rms_norm_eps"] == 1e-5
    assert (config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]) == (HEADS, KV_HEADS, HIDDEN // HEADS)
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, 2)
