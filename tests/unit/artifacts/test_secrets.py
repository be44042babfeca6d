"""What is a secret, and that no writing of one is left in an object or a text."""

from __future__ import annotations

import base64
import html
import json
import shlex
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.artifacts.redaction import REDACTED, Redactor, restore_secrets, secret_values, without_secrets
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.artifacts.secret_names import is_secret
from tune_gpu.artifacts.secret_writings import ORDINARY, Writings
from tune_gpu.common.errors import UserError
from tune_gpu.config.loader import as_yaml, load_config
from tune_gpu.config.schema import ExperimentConfig, ParameterSpec
from tune_gpu.experiment.secret_check import check_secrets
from tune_gpu.services.vllm.server import engine_environment, serve_flags
from tune_gpu.services.vllm.settings import VllmSettings

NAMED = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_2", "hf.token", "--hf-token", "hfToken", "token", "API_TOKENS", "GITHUB_TOKENS", "api-key", "apiKey", "APIKEY", "x-api-key", "API_KEYS", "OPENAI_API_KEY", "VLLM_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AZURE_CLIENT_SECRET", "azureClientSecret", "AccountKey", "SharedAccessKey", "AZURE_STORAGE_CONNECTION_STRING", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_API_KEY", "WANDB_KEY", "wandb-key", "wandbKey", "PRIVATE_KEY", "SSH_PRIVATE_KEY_PEM", "session_key", "SECRET", "SECRET_KEY_BASE", "db_password", "dbPassword", "password2", "PGPASSWORD", "MYSQL_PWD", "SMTP_PASS", "passphrase", "passwd", "credentials", "DATABASE_URL", "REDIS_URL", "MONGODB_URI", "SENTRY_DSN", "Authorization", "proxy-authorization", "auth", "bearer", "Cookie", "Set-Cookie", "GITHUB_PAT", "RAY_AUTH_TOKEN"]
OTHERS = ["max_tokens", "tokens", "prompt_tokens", "eos_token_id", "bos_token", "pad_token", "tokenizer", "tokenizer_mode", "token_count", "kv_cache_tokens", "max_num_batched_tokens", "key", "keys", "time_per_output_token", "time_to_first_token", "bytes_per_token", "experts_per_token", "key_env", "engine_key", "order_key", "sort_key", "cache_key", "monkey", "keyboard", "turkey", "author", "authority", "secretary", "PWD", "OLDPWD", "SSH_AUTH_SOCK", "XAUTHORITY", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "PASSWORD_FILE", "bypass", "compass", "pass_config", "allowed_headers", "url", "base_url", "seed", "path"]


@pytest.mark.parametrize("name", NAMED)
def test_a_name_that_says_secret_is_one_in_any_writing(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", OTHERS)
def test_the_names_of_ordinary_settings_are_not_secret(name: str) -> None:
    assert not is_secret(name)


WRITINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": lambda value: json.dumps(value)[1:-1],
    "JSON in JSON": lambda value: json.dumps(json.dumps(value)[1:-1])[1:-1],
    "JSON with Unicode": lambda value: json.dumps(value, ensure_ascii=False)[1:-1],
    "Python": lambda value: repr(value)[1:-1],
    "Python's ascii": lambda value: ascii(value)[1:-1],
    "bytes": lambda value: repr(value.encode())[2:-1],
    "YAML, single quotes": lambda value: yaml.safe_dump(value, default_style="'", allow_unicode=True, width=9)[1:-2],
    "YAML, double quotes": lambda value: yaml.safe_dump(value, default_style='"', width=9)[1:-2],
    "shell": lambda value: shlex.quote(f"{value} ")[1:-2],
    "URL": lambda value: urllib.parse.quote(value, safe=""),
    "form": urllib.parse.quote_plus,
    "HTML": html.escape,
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 for URLs": lambda value: base64.urlsafe_b64encode(value.encode()).decode().rstrip("="),
    "wrapped": lambda value: "\n    ".join(value[at : at + 5] for at in range(0, len(value), 5)),
}
SECRETS = st.text(st.characters(min_codepoint=32, max_codepoint=0x1F680, exclude_categories=("Cs", "Cc", "Zl", "Zp", "Zs", "Cn", "Co")), min_size=8, max_size=60).filter(
    lambda text: text.lower() not in ORDINARY
)


@given(secret=SECRETS, name=st.sampled_from(sorted(WRITINGS)))
def test_no_writing_of_a_secret_stays_in_a_text(secret: str, name: str) -> None:
    written = WRITINGS[name](secret)
    redacted = Writings([secret]).removed_from(f"[[ {written} ]]")
    assert redacted.startswith("[[ ")
    assert redacted.endswith(" ]]")
    left = redacted[3:-3].replace(REDACTED, "")
    assert len(left.strip("=\\")) < 4, (written, redacted)


INNER = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "env", "max_tokens", "note"]), inner, max_size=3),
    max_leaves=8,
)


@given(secret=SECRETS, around=INNER, writing=st.sampled_from(sorted(WRITINGS)), name=st.sampled_from([name for name in NAMED if "URL" not in name]))
def test_an_object_with_a_secret_anywhere_is_written_without_it(secret: str, around: object, writing: str, name: str) -> None:
    config = ExperimentConfig(name="e")
    config.services.vllm.env["SOME_TOKEN"] = secret
    content = {"around": around, "deep": [{name: secret}, [name if name.startswith("--") else "--hf-token", secret]], "text": f"said {WRITINGS[writing](secret)}."}
    redactor = Redactor(config, environment={})
    redacted = redactor.value(content)
    for rendered in (json.dumps(redacted, ensure_ascii=False), yaml.safe_dump(redacted, allow_unicode=True, width=10**6)):
        assert secret not in rendered
    assert redacted["deep"][0][name] == redacted["deep"][1][1] == REDACTED
    assert redactor.value(redacted) == redacted, "what is redacted stays as it is"


@pytest.mark.parametrize("secret", ["quote'd \"se\\cret\"", "line\nbroken\nvalue", "-----BEGIN PRIVATE KEY-----\nMIIE" + "x" * 200 + "\n-----END PRIVATE KEY-----", "lead: #and ' more " * 12])
def test_a_settings_file_holds_no_secret_that_yaml_quotes_or_folds(tmp_path: Path, secret: str) -> None:
    config = ExperimentConfig(name="e")
    config.services.vllm.env["PRIVATE_KEY"] = secret
    config.services.vllm.env["NOTE"] = f"it is {secret}!"
    folder = RunFolder(tmp_path, "e", "run-1", Redactor(config))
    folder.create(as_yaml(config))
    env = load_config(str(folder.path / "config.yaml"), []).services.vllm.env
    assert env["PRIVATE_KEY"] == REDACTED
    assert set(env["NOTE"].removeprefix("it is ").removesuffix("!").split()) == {REDACTED}


SHAPED = ["hf_" + "a1B2" * 8, "sk-proj-" + "a1_B" * 6, "sk-ant-api03-" + "x9Y-" * 8, "ghp_" + "a1" * 18, "github_pat_" + "1A_b" * 10, "xoxb-1234567890-abcdef",
          "AKIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7EXAMPLE", "AIza" + "Sy_-1" * 7, "glpat-" + "a1B2c" * 4, "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc_-DEF", "npm_" + "a1B2" * 9,
          "nvapi-" + "a1B2" * 8, "gsk_" + "a1B2" * 8, "hvs." + "a1B2" * 8, "-----BEGIN RSA PRIVATE KEY-----\nabcdef\n-----END RSA PRIVATE KEY-----"]  # fmt: skip


@pytest.mark.parametrize("token", SHAPED, ids=[token[:8] for token in SHAPED])
def test_a_token_of_known_shape_is_removed_though_nobody_named_it(token: str) -> None:
    assert Redactor(environment={}).text(f"refused: {token} .") == f"refused: {REDACTED} ."


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("postgres://me:p@ss/w0rd@host:5432/db", f"postgres://{REDACTED}@host:5432/db"),
        ("https://abcdefghij0123456789@host/x", f"https://{REDACTED}@host/x"),
        ("GET /v1?a=1&api_key=x1&sig=a%2Fb", f"GET /v1?a=1&api_key={REDACTED}&sig={REDACTED}"),
        ("services.vllm.env.HF_TOKEN=abc", f"services.vllm.env.HF_TOKEN={REDACTED}"),
        ("services.vllm.env={HF_TOKEN: abc, X: y}", f"services.vllm.env={{HF_TOKEN: {REDACTED}, X: y}}"),
        ("serve --hf-token abcdef --port 1", f"serve --hf-token {REDACTED} --port 1"),
        ("Authorization: Bearer abcdefgh", f"Authorization: {REDACTED}"),
        ('{"headers": "{\\"x-api-key\\": \\"abc\\"}"}', f'{{"headers": "{{\\"x-api-key\\": \\"{REDACTED}\\"}}"}}'),
        ("password: 'a b'", f"password: '{REDACTED}'"),
    ],
)
def test_a_value_beside_the_name_of_a_secret_is_removed(text: str, left: str) -> None:
    assert Redactor(environment={}).text(text) == left


@pytest.mark.parametrize(
    "text",
    ["http://127.0.0.1:8000/a@b", "HF_TOKEN: set it, then resume", "set --hf-token to it", "max_tokens=5 tokens: 12", "ssh://git@host/x", "a task-specific-long-name-here",
     "the token: it is missing", "Basic authentication failed, see the bearer of hf_quantizer_configuration and sk_something_very_long", "KV cache size: 12,345 tokens", "eos_token_id=2, pad_token='<pad>'"],
)  # fmt: skip
def test_ordinary_text_is_left_as_it_is(text: str) -> None:
    assert Redactor(environment={"A_TOKEN": "short", "SESSION_KEY": "default"}).text(text) == text


def test_evidence_that_was_cut_holds_no_part_of_a_secret() -> None:
    redactor, secret = Redactor(environment={"A_TOKEN": "0123456789abcdefghij"}), "0123456789abcdefghij"
    assert redactor.text(f"refused {secret[:12]}") == f"refused {REDACTED}"
    assert redactor.text(f"{secret[8:]} refused") == f"{REDACTED} refused"


def test_secrets_within_values_are_known_too() -> None:
    found = set(secret_values({"URL": "redis://u:in-the-url@h/0", "EXTRA": '{"headers": {"Authorization": "Bearer in-a-header"}}', "ARGS": ["--api-key", "in-a-list"]}))
    assert {"in-the-url", "in-a-header", "in-a-list"} <= found


def test_a_setting_that_was_redacted_in_part_is_asked_for_on_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ExperimentConfig(name="e")
    config.services.vllm.env["OTEL_HEADERS"] = f"authorization=Bearer {REDACTED}"
    monkeypatch.delenv("OTEL_HEADERS", raising=False)
    with pytest.raises(UserError, match="Set the environment variable OTEL_HEADERS"):
        restore_secrets(config)
    monkeypatch.setenv("OTEL_HEADERS", "authorization=Bearer abc")
    restore_secrets(config)
    config.ray.storage_path = f"s3://{REDACTED}@bucket"
    with pytest.raises(UserError, match=r"ray\.storage_path: a secret, which is not kept"):
        restore_secrets(config)


def test_the_search_does_not_depend_on_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for secret in ("one-secret", "tiny.en-other"):
        monkeypatch.setenv("SOME_TOKEN", secret)
        config = load_config("spica_gpu_allocation", [f"services.vllm.env.WANDB_KEY={secret}", f"services.vllm.env.PROXY=http://me:{secret}@host"], "cpu")
        made.append(without_secrets(config))
    assert made[0] == made[1]


def test_a_token_of_vllm_travels_by_environment() -> None:
    for name in ("hf-token", "hf_token"):
        settings = VllmSettings(extra_args={name: "s3cret-token", "seed": 1})
        assert not [flag for flag in serve_flags(settings) if "token" in flag]
        assert engine_environment(settings, "key", "cpu", "scratch", base={})["HF_TOKEN"] == "s3cret-token"
    settings.env["HF_TOKEN"] = "the-variable-itself"
    assert engine_environment(settings, "key", "cpu", "scratch", base={})["HF_TOKEN"] == "the-variable-itself"
    assert "--hf-token" in serve_flags(VllmSettings(extra_args={"hf-token": True})), "the login that the user has made is no secret"


@pytest.mark.parametrize("name", ["model_loader_extra_config", "kv_transfer_config", "otlp_traces_endpoint", "some-api-key"])
def test_another_secret_flag_is_refused_with_advice(name: str) -> None:
    config = ExperimentConfig(name="e")
    config.services.vllm.extra_args[name] = {"otlp_traces_endpoint": "http://me:s3cret@host", "some-api-key": "s3cret"}.get(name, {"nested": {"secret_key": "s3cret"}})
    with pytest.raises(UserError, match=rf"services\.vllm\.extra_args\.{name}: a secret.* Set it as a variable of the environment"):
        check_secrets(config)


def test_a_secret_cannot_be_searched() -> None:
    config = ExperimentConfig(name="e", parameters={"k": ParameterSpec("vllm.env.HF_TOKEN", values=["a-secret", "b-secret"])})
    with pytest.raises(UserError, match=r"parameters\.k\.target=vllm\.env\.HF_TOKEN: a secret cannot be searched"):
        check_secrets(config)
