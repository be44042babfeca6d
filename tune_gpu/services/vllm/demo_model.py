"""`demo-llm`: a Llama-type model of a few layers and a byte-level tokenizer, made from this code.

Served with `--load-format dummy` it is a real engine with real scheduling and a real KV cache; only its text is noise. It replaces a model
where no hub can be reached, and is small enough for two CPU cores.
"""

from __future__ import annotations

import json
from pathlib import Path

CONFIG: dict[str, object] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "vocab_size": 260,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "attention_bias": False,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 258,
}
SPECIAL_TOKENS = ["<s>", "</s>", "<pad>", "<unk>"]


def make_demo_llm(folder: Path) -> Path:
    """Write the model's `config.json` and tokenizer into `folder` (made if missing), and return the folder.

    Each byte is one token (ids 0 to 255), so a prompt has as many tokens as bytes.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    tokenizer.save(str(folder / "tokenizer.json"))
    bos, eos, pad, unk = SPECIAL_TOKENS
    files = {
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": bos,
            "eos_token": eos,
            "pad_token": pad,
            "unk_token": unk,
            "model_max_length": CONFIG["max_position_embeddings"],
            "clean_up_tokenization_spaces": False,
        },
        "generation_config.json": {"bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 258},
        "config.json": CONFIG,  # last: its presence means that the folder is complete
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    return folder
