"""What the folder of an embedding model says beside its `config.json`."""

from __future__ import annotations

from pathlib import Path

from tune_gpu.common import outside_files

_KINDS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")


def authors_limit(folder: Path) -> int | None:
    """Return the tokens to which its authors limit a text, or None.

    vLLM takes `max_seq_length` of the first of these files of sentence-transformers that is not empty for the model's own context
    (`get_sentence_transformer_tokenizer_config`).
    """
    for kind in _KINDS:
        try:
            found = outside_files.read_json(folder / f"sentence_{kind}_config.json", outside_files.MODEL)
        except outside_files.NotThere:
            continue
        if found:
            value = found.get("max_seq_length") if isinstance(found, dict) else None
            return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
    return None
