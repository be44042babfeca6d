"""Secrets do not reach an artifact: what a run writes down is searched for the values of secrets first.

A secret is the value of a setting or an environment variable whose name says so (`HF_TOKEN`, `api-key`, `DB_PASSWORD`), or a text in the
form that a known issuer gives to its tokens. What a resumed run needs of them it takes from the environment again.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from tune_gpu.config import ExperimentConfig
from tune_gpu.errors import UserError

REDACTED = "<redacted>"
_NAME = re.compile(r"(?:^|[_\-.])(?:token|api[_-]?key|access[_-]?key|secret|secret[_-]?key|password|passwd|credentials?|auth)$", re.IGNORECASE)
_SHAPE = re.compile(r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_\-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|nvapi-[A-Za-z0-9_\-]{20,}|AKIA[A-Z0-9]{16})")
_SHORTEST = 6
"""A shorter value would blot out ordinary text."""


def is_secret(name: str) -> bool:
    """Whether a setting or variable of this name holds a secret (`max_tokens` and `eos_token_id` do not)."""
    return bool(_NAME.search(name))


def secret_values(content: Mapping[str, Any]) -> Iterator[str]:
    """The values of secrets in nested settings or in an environment."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from secret_values(value)
        elif isinstance(value, str) and is_secret(str(name)) and len(value) >= _SHORTEST and value != REDACTED:
            yield value


class Redactor:
    """Replaces secrets in whatever is about to be written.

    Args:
        config: whose settings' secrets are known too; null for those of this process's environment alone.
    """

    def __init__(self, config: ExperimentConfig | None = None) -> None:
        known = set(secret_values(os.environ))
        if config is not None:
            known |= set(secret_values(asdict(config)))
        longest_first = sorted(known, key=lambda value: (-len(value), value))
        self._known = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def text(self, text: str) -> str:
        """Without secrets."""
        if self._known:
            text = self._known.sub(REDACTED, text)
        return _SHAPE.sub(REDACTED, text)

    def value(self, value: Any) -> Any:
        """The same for everything inside: dictionaries, lists, texts."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self.value(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(inner) for inner in value]
        return value


def restore_secrets(config: ExperimentConfig) -> None:
    """Of a run that is resumed, compared or promoted: what was redacted in its settings comes from the environment. Raises UserError for a variable that is not set."""
    for path, settings in _holders(config).items():
        for name in [name for name, value in settings.items() if value == REDACTED]:
            variable = name.replace("-", "_").upper() if path.endswith("extra_args") else name
            if variable not in os.environ:
                raise UserError(f"{path}.{name} is a secret and was not kept with the run; set the environment variable {variable} to it")
            settings[name] = os.environ[variable]


def without_secrets(config: ExperimentConfig) -> ExperimentConfig:
    """A copy that may be pickled where others read: Ray Tune writes what a searcher refers to into the run's folder."""
    copied = copy.deepcopy(config)
    for settings in _holders(copied).values():
        settings.update({name: REDACTED for name in settings if is_secret(name)})
    return copied


def _holders(config: ExperimentConfig) -> dict[str, dict[str, Any]]:
    """The settings that may be secrets, by where they stand."""
    services, of_ray = config.services, config.ray.runtime_env.get("env_vars")
    return {
        "services.vllm.env": services.vllm.env,
        "services.vllm.extra_args": services.vllm.extra_args,
        "services.whisper.env": services.whisper.env,
        "ray.runtime_env.env_vars": of_ray if isinstance(of_ray, dict) else {},
    }
