"""Keep secrets out of everything that a run writes. Settings, results and texts are redacted as objects, before they are rendered.

A secret is recognised by its name (`secret_names`). Its value is then removed from every text, in any encoding (`secret_writings`). A
resumed run takes its secrets from the environment again.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tune_gpu.artifacts.secret_names import KEY_PLACEHOLDER, is_secret
from tune_gpu.artifacts.secret_writings import REDACTED, Writings, secrets_in
from tune_gpu.common.errors import UserError
from tune_gpu.config.targets import mappings_of

if TYPE_CHECKING:
    from tune_gpu.config.schema import ExperimentConfig

__all__ = ["REDACTED", "Redactor", "holds_secret", "is_secret", "restore_secrets", "secret_values", "without_secrets"]


def secret_values(content: Any, named: bool = False) -> Iterator[str]:
    """Yield the values of secrets in settings or in an environment, at any depth and inside texts.

    Args:
        content: the object to search.
        named: whether its name marks the whole object as secret.
    """
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from secret_values(value, named or is_secret(str(name)))
    elif isinstance(content, (list, tuple)):
        for before, value in zip((None, *content), content, strict=False):
            yield from secret_values(value, named or _is_flag(before))
    elif isinstance(content, str):
        if REDACTED in content or content == KEY_PLACEHOLDER:
            return
        yield from secrets_in(content)
        yield from secret_values(_structure(content), named)
        if named:
            yield from (content, *secrets_in(f"authorization={json.dumps(content)}"))
    elif named and isinstance(content, (int, float)) and not isinstance(content, bool):
        yield str(content)


def holds_secret(name: str, value: Any) -> bool:
    """Return True if a setting or variable is a secret by its name, or contains one (`http://user:password@host`). A switch
    (`allow-credentials`) is none."""
    return not isinstance(value, bool) and (is_secret(name) or any(secret_values(value)))


class Redactor:
    """Replace secrets in whatever is about to be written.

    Args:
        config: settings whose secrets are removed, too; None to remove only those of the environment.
        environment: the variables to take secrets from; None for this process's environment.
    """

    def __init__(self, config: ExperimentConfig | None = None, environment: Mapping[str, str] | None = None) -> None:
        variables = dict(os.environ if environment is None else environment)
        known = set(secret_values(variables))
        if config is not None:
            content = asdict(config)
            known |= set(secret_values(content))
            for name in _key_variables(content):
                known |= set(secret_values(variables.get(name), named=True))
        self._writings = Writings(known)

    def text(self, text: str) -> str:
        """Return the text without secrets."""
        return self._writings.removed_from(text)

    def value(self, value: Any, named: bool = False) -> Any:
        """Return the object without secrets: dictionaries, lists and texts at any depth.

        Args:
            value: the object, which is not changed.
            named: whether its name marks the whole object as secret.
        """
        if isinstance(value, Mapping):
            return {self.value(key): self.value(inner, named or is_secret(str(key))) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(inner, named or _is_flag(before)) for before, inner in zip((None, *value), value, strict=False)]
        if isinstance(value, str):
            return REDACTED if named and value and value != KEY_PLACEHOLDER else self.text(value)
        return REDACTED if named and isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _key_variables(content: Any) -> Iterator[str]:
    """Yield the variables that a setting `key_env` names as keys, whatever their names."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            if name == "key_env" and isinstance(value, str):
                yield value
            else:
                yield from _key_variables(value)


def _is_flag(word: Any) -> bool:
    """Return True if the next word of a command line is a secret."""
    return isinstance(word, str) and word.startswith("--") and "=" not in word and is_secret(word)


def _structure(text: str) -> Any:
    """Return the value of a JSON text, or None for any other text."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def restore_secrets(config: ExperimentConfig) -> None:
    """Restore redacted settings of a run from the environment. Raise UserError for a variable that is not set."""
    for path, settings in _holders(config).items():
        for name in [name for name, value in settings.items() if REDACTED in str(value)]:
            variable = name.replace("-", "_").upper() if path.endswith("extra_args") else name
            if variable not in os.environ:
                raise UserError(f"{path}.{name}: a secret, which is not kept with the run. Set the environment variable {variable} to its value.")
            settings[name] = os.environ[variable]
    if left := _still_redacted(asdict(config)):
        raise UserError(f"{left}: a secret, which is not kept with the run. Give it again, as {left}=VALUE.")


def _still_redacted(content: Any, path: str = "") -> str | None:
    """Return the dotted name of a setting that is still redacted, or None."""
    if isinstance(content, str):
        return path if REDACTED in content else None
    inner = content.items() if isinstance(content, Mapping) else enumerate(content) if isinstance(content, (list, tuple)) else ()
    return next((found for name, value in inner if (found := _still_redacted(value, f"{path}.{name}".lstrip(".")))), None)


def without_secrets(config: ExperimentConfig) -> ExperimentConfig:
    """Return a copy that may be pickled where others can read it: Ray Tune writes everything that a searcher refers to into the run's
    folder.

    The values of all variables are removed. The search does not need them, because candidates differ in their parameters only.
    """
    copied, redactor = copy.deepcopy(config), Redactor(config)
    for path, settings in _holders(copied).items():
        settings.update(dict.fromkeys(settings, REDACTED) if path.endswith(("env", "env_vars")) else redactor.value(settings))
    return copied


def _holders(config: ExperimentConfig) -> dict[str, dict[str, Any]]:
    """Return the settings that may be secrets, by their path."""
    of_ray = config.ray.runtime_env.get("env_vars")
    of_services = {f"services.{name}.{setting}": getattr(settings, setting) for name, settings in config.services.items() for setting in mappings_of(settings)}
    return of_services | {"ray.runtime_env.env_vars": of_ray if isinstance(of_ray, dict) else {}}
