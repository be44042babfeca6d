"""Recognise names of secrets: settings, variables, headers, flags and query parameters, in any naming style."""

from __future__ import annotations

import itertools
import re

KEY_PLACEHOLDER = "{key}"
"""Stands for the key of a service in a variable of a command. It is filled in when the service is started, and is no secret itself."""
_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")

_ANYWHERE = {"secret", "secrets", "password", "passwords", "passwd", "passphrase", "passcode", "credential", "credentials", "apikey", "apikeys", "apitoken",
             "accesskey", "privatekey", "secretkey", "authtoken", "accesstoken", "hftoken"}  # fmt: skip
"""Words that make a name secret anywhere in it, unless its end shows that it is about a secret (`password_file`)."""
_AT_THE_END = {"token", "auth", "authorization", "bearer", "cookie", "cookies", "jwt", "dsn", "passkey", "psk", "sshpass"}
"""Words that make a name secret at its end."""
_AFTER_ANOTHER = {"pwd", "pass", "pat"}
"""Words that make a name secret at its end, after another word: `MYSQL_PWD` is a secret, `PWD` the current folder."""
_ABOUT = {"file", "path", "dir", "folder", "name", "env", "id", "length", "len", "count", "size", "limit", "type", "mode", "policy", "ttl", "timeout",
          "expiry", "provider", "helper", "store", "arn", "enabled", "required"}  # fmt: skip
"""Last words of names that are about a secret and do not hold it."""
_NOT_A_TOKEN = {"max", "min", "eos", "bos", "pad", "unk", "sep", "cls", "mask", "stop", "start", "end", "image", "audio", "video", "special", "per", "each",
                "first", "last", "next", "output", "input", "prompt", "completion", "new", "decode", "prefill", "num", "n", "time", "begin", "eot",
                "suffix", "prefix", "placeholder", "think", "reasoning", "bonus", "draft", "sampled"}  # fmt: skip
"""Words before `token` that name a token of a model, not a secret."""
_SECRET_PLURAL = {"api", "auth", "access", "refresh", "bearer", "session", "hf", "hub", "github", "gitlab", "slack", "npm", "pypi", "secret", "private", "ssh",
                  "encryption", "signing", "service", "account", "deploy", "personal"}  # fmt: skip
"""Words that make a following `tokens` or `keys` secret. Without them these words are counts."""
_NOT_A_KEY = {"engine", "order", "sort", "sorting", "cache", "group", "grouping", "metric", "primary", "foreign", "partition", "public", "dict", "map", "index",
              "lookup", "row", "column", "field", "hot", "json", "yaml", "config", "setting", "candidate", "param", "parameter", "layer", "head", "query",
              "attention", "kv", "no", "any", "each", "the", "block", "prefix", "shard", "unique", "sub", "parent", "search", "tie", "arm", "by", "of",
              "routing", "idempotency", "value", "label", "tag", "object", "s", "calibration"}  # fmt: skip
"""Words before `key` that name a key of a table or an order, not a credential."""
_SERVERS = {"database", "db", "redis", "mongo", "mongodb", "postgres", "postgresql", "pg", "mysql", "mariadb", "amqp", "rabbitmq", "broker", "webhook",
            "clickhouse", "mssql", "sqlalchemy", "celery", "result", "backend", "elasticsearch", "kafka", "nats"}  # fmt: skip
"""Servers whose addresses usually contain a password."""
_PASSWORD_WORD = re.compile(r"^(?!askpass)[a-z]*(?:password|passwd|passphrase|apikey|secretkey|accesskey)$")
"""Names written as one word: `PGPASSWORD`, `dbpassword`."""


def is_secret(name: str) -> bool:
    """Return True if a value with this name is a secret: `HF_TOKEN`, `--hf-token`, `x-api-key`, `dbPassword` (`max_tokens`, `key_env`,
    `monkey` are not)."""
    words = [word.lower() for word in _WORD.findall(name)]
    if not words:
        return False
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if words[-3:] in (["access", "key", "id"], ["secret", "key", "base"]):
        return True
    if last in _ABOUT:
        return False
    if any(word in _ANYWHERE or _PASSWORD_WORD.match(word) for word in words) or _has_pair(words):
        return True
    if last in ("token", "key") and len(words) > 1:
        return before not in (_NOT_A_TOKEN if last == "token" else _NOT_A_KEY)
    if last in ("tokens", "keys"):
        return before in _SECRET_PLURAL
    if last in ("url", "uri", "urls"):
        return before in _SERVERS
    if last in _AFTER_ANOTHER:
        return len(words) > 1
    return last in _AT_THE_END


def _has_pair(words: list[str]) -> bool:
    """Return True for two words that together name a secret, anywhere in the name: `AZURE_STORAGE_CONNECTION_STRING`, `PRIVATE_KEY_PEM`."""
    pairs = list(itertools.pairwise(words))
    return any(pair in (("connection", "string"), ("private", "key"), ("api", "key"), ("access", "key"), ("session", "key")) for pair in pairs)
