"""Secrets do not reach an artifact, names do not lead out of it, and nothing in the program can run what it reads."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from ray import cloudpickle

from tests.support.made_run import line
from tune_gpu.artifacts.records.winner import WinnerFile
from tune_gpu.artifacts.redaction import REDACTED, Redactor, is_secret, restore_secrets
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.common.errors import UserError
from tune_gpu.common.own_files import sealed
from tune_gpu.compare.samples import Replicate
from tune_gpu.compare.setup import make_terms
from tune_gpu.compare.store import ReplicateStore
from tune_gpu.config.loader import as_yaml, load_config
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.texts import check_name
from tune_gpu.experiment.new_tournament import new_tournament
from tune_gpu.experiment.refusals import Refusals

TOKEN = "s3cr3t-of-the-hub"
ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "api-key", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "db_password", "SECRET"])
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["max_tokens", "eos_token_id", "kv_cache_tokens", "engine_key", "tokenizer", "author", "secretary"])
def test_names_of_what_is_none(name: str) -> None:
    assert not is_secret(name)


def configured() -> ExperimentConfig:
    config = ExperimentConfig(name="e")
    config.services.vllm.env["HF_TOKEN"] = TOKEN
    config.services.vllm.extra_args["hf-token"] = TOKEN
    config.ray.runtime_env = {"env_vars": {"HF_TOKEN": TOKEN}}
    return config


def test_the_placeholder_of_a_key_is_kept() -> None:
    """It would be asked of the user as a secret when the run is resumed."""
    config = configured()
    config.services.vllm.env["TTS_API_KEY"] = "{key}"
    redactor = Redactor(config, {})
    assert redactor.value({"env": {"TTS_API_KEY": "{key}", "HF_TOKEN": TOKEN}}) == {"env": {"TTS_API_KEY": "{key}", "HF_TOKEN": REDACTED}}
    assert redactor.text("{key} of tts") == "{key} of tts"


def test_a_key_is_known_by_the_setting_that_names_its_variable() -> None:
    config = ExperimentConfig(name="e")
    config.promote.vllm.key_env = "DOOR"
    assert Redactor(config, {"DOOR": TOKEN, "WINDOW": "open"}).text(f"{TOKEN} is open") == f"{REDACTED} is open"


def test_no_file_of_a_run_holds_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-the-environment")
    config = configured()
    folder = RunFolder(tmp_path, "e", "run-1", Redactor(config))
    folder.create(as_yaml(config))
    shown = f"given {TOKEN}, of-the-environment and hf_abcdefghijklmnopqrstuvwx"
    folder.append_candidate(line("g0-c0", {}, None, failure={"kind": "oom", "evidence": shown}, list=[shown]))
    folder.write_json("manifest.json", {"argv": ["launch", f"services.vllm.env.HF_TOKEN={TOKEN}"]})
    folder.write_winner(WinnerFile(run_id="run-1", best_params={}, best_metrics={"log": shown}, confirmed=False))
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 4
    for path in written:
        text = path.read_text()
        for secret in (TOKEN, "of-the-environment", "hf_abcdefghijklmnopqrstuvwx"):
            assert secret not in text, path.name
        assert REDACTED in text


def test_no_file_of_a_comparison_holds_a_secret_and_it_still_goes_on(tmp_path: Path) -> None:
    config = configured()
    terms, path = make_terms(config, "cpu", {}, 1), tmp_path / "comparison.jsonl"
    failed = Replicate("winner", 0, failure={"kind": "startup_crash", "message": "no access", "evidence": f"given {TOKEN}"})
    ReplicateStore(path, terms, Redactor(config)).append(failed)
    assert TOKEN not in path.read_text()
    assert len(ReplicateStore(path, terms, Redactor(config)).replicates()) == 1, "the same terms"


def test_what_ray_tune_pickles_of_a_search_holds_no_secret() -> None:
    config = load_config("spica_gpu_allocation", [f"services.vllm.env.HF_TOKEN={TOKEN}"], "cpu")
    assert TOKEN.encode() not in cloudpickle.dumps(new_tournament(config, Refusals()))
    assert config.services.vllm.env["HF_TOKEN"] == TOKEN, "what is deployed has it"


def test_a_resumed_run_takes_its_secrets_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured()
    (tmp_path / "config.yaml").write_text(sealed(Redactor(config).text(as_yaml(config))))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    again = load_config(str(tmp_path / "config.yaml"), [])
    assert again.services.vllm.env["HF_TOKEN"] == REDACTED
    with pytest.raises(UserError, match="Set the environment variable HF_TOKEN"):
        restore_secrets(again)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    restore_secrets(again)
    assert again.services.vllm.env["HF_TOKEN"] == again.services.vllm.extra_args["hf-token"] == TOKEN
    assert again.ray.runtime_env["env_vars"]["HF_TOKEN"] == TOKEN


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "/etc", "..", ".hidden", "", "a..b", "winners", "promotions", "x" * 101, "a\nb"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="not a name"):
        check_name("name", name)
    with pytest.raises(UserError, match="not a name"):
        RunFolder(tmp_path / "artifacts", name, "run-1").create("")
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("run_id", ["../../etc", "..", "/etc", "a/../../b", ""])
def test_a_run_id_that_leads_elsewhere_is_no_run(tmp_path: Path, run_id: str) -> None:
    (tmp_path / "artifacts" / "e" / "run-1").mkdir(parents=True)
    (tmp_path / "artifacts" / "e" / "run-1" / "config.yaml").write_text("name: e\n")
    with pytest.raises(UserError, match="run-1"):
        RunFolder.find(tmp_path / "artifacts", run_id)


def test_nothing_that_is_read_can_be_run() -> None:
    """No eval, no shell, no pickle, no YAML that makes objects, in any module of the program."""
    forbidden = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "cloudpickle.load", "cloudpickle.loads",
                 "dill.load", "marshal.loads", "shelve.open", "joblib.load", "torch.load", "numpy.load", "np.load", "yaml.load", "yaml.unsafe_load",
                 "yaml.full_load"}  # fmt: skip
    for package in ("tune_gpu", "trainables"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    assert ast.unparse(node.func) not in forbidden, f"{path.name}:{node.lineno}: {ast.unparse(node.func)}"
                    assert not any(word.arg == "shell" and ast.unparse(word.value) != "False" for word in node.keywords), f"{path.name}:{node.lineno}"
