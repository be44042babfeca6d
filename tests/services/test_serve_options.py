"""Every option of the installed `vllm serve` means the same measured and deployed, by vLLM's own parsers, or the space is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tune_gpu.services.vllm.observed import DEFAULTS
from tune_gpu.services.vllm.options import Kind, Role, options, own_options

pytestmark = pytest.mark.services
SECRETS = {"hf-token"}
"""Options whose values are left out of the deployed file: they come from the environment."""
DRAWN = ("kv-transfer-config", "ec-transfer-config")
"""Options that get a new `engine_id` in every process."""


def test_the_shipped_options_are_those_of_the_installed_parser(enumerated: dict[str, Any]) -> None:
    installed = {name: (row["kind"], row["also"]) for name, row in enumerated["options"].items()}
    assert {name: (str(each.kind), list(each.also)) for name, each in options().items()} == installed


def test_the_defaults_are_those_of_the_installed_parser(enumerated: dict[str, Any]) -> None:
    """A start log is read by them."""
    assert json.loads(DEFAULTS.read_text(encoding="utf-8")) == enumerated["defaults"]


def test_every_entry_means_deployed_what_it_meant_measured(enumerated: dict[str, Any]) -> None:
    different = {f"{row.get('name', row.get('setting'))}={row['value']!r}": row["differences"] for row in enumerated["rows"] if row["differences"]}
    expected = [key for key in different if key.replace("_", "-").startswith((*SECRETS, *DRAWN))]
    assert {key: value for key, value in different.items() if key not in expected} == {}
    for key in expected:
        assert {name.split()[-1] for name in different[key]} == {key.split("=")[0].replace("-", "_")}


def test_every_option_is_taken_with_some_value_or_refused_by_its_role(enumerated: dict[str, Any]) -> None:
    taken = {str(row["name"]).replace("_", "-").removeprefix("no-") for row in enumerated["rows"] if "name" in row and "refused" not in row}
    closed = {name for name, each in options().items() if each.role is Role.SERVER and each.kind not in (Kind.SWITCH, Kind.ON)}
    below = {"speculative-config.num-speculative-tokens", "compilation-config.custom-ops+", "additional-config.n"}
    assert {*options(), *below} - taken == closed | own_options()


def test_no_accepted_entry_touches_another_option_or_the_server(enumerated: dict[str, Any]) -> None:
    """The model, the address and whatever has another name stay as they are."""
    # Two options are the old names of parts of a structure, and `data_parallel_size` needs one HTTP server
    beside = {"log_config_file": {"logging_config"}, "data_parallel_size": {"api_server_count"}}
    for row in enumerated["rows"]:
        if "name" in row and "refused" not in row:
            name = str(row["name"]).split(".")[0].replace("-", "_")
            allowed = {name, name.removeprefix("no_"), *beside.get(name, ())}
            assert set(row["changed"]) <= allowed, row


def test_switches_are_what_they_were_set_to(enumerated: dict[str, Any]) -> None:
    tried = 0
    for row in enumerated["rows"]:
        name = str(row.get("name", row.get("setting"))).replace("_", "-")
        option = options().get(name.removeprefix("no-"))
        if option and option.kind is Kind.SWITCH and "refused" not in row and isinstance(row["value"], bool):
            changed = row["changed"].get(option.name.replace("-", "_"))
            assert changed in (None, row["value"] != name.startswith("no-")), row
            tried += 1
    assert tried > 150


def test_values_are_read_as_they_are_meant(enumerated: dict[str, Any]) -> None:
    assert len(enumerated["cases"]) > 10
    assert [row for row in enumerated["cases"] if not row["right"]] == []
