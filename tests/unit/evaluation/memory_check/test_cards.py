"""Cards by the names that people and drivers use, and this machine's node."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune_gpu.common.errors import UserError
from tune_gpu.evaluation.memory_check.cards import Card, card_memory, cards, find_card, nvml_memory, this_node, under_wsl
from tune_gpu.evaluation.memory_check.cards import cards as cards_function


@pytest.mark.parametrize(("name", "card"), [
    ("RTX 3060", "RTX 3060"), ("NVIDIA GeForce RTX 3060", "RTX 3060"), ("rtx3060", "RTX 3060"), ("NVIDIA GeForce RTX 3060 Ti", "RTX 3060 Ti"),
    ("RTX 5070 Ti", "RTX 5070 Ti"), ("RTX 4070 Laptop", "RTX 4070 Laptop"), ("Tesla T4", "T4"), ("T4", "T4"), ("V100 32GB", "V100 32GB"),
    ("A100 40GB (a2-highgpu-1g)", "A100 40GB"), ("NVIDIA A100-SXM4-80GB", "A100 80GB"), ("A100 80G", "A100 80GB"), ("H100", "H100 80GB"),
    ("NVIDIA H100 80GB HBM3", "H100 80GB"), ("L4 (g6.xlarge)", "L4"), ("NVIDIA L40S", "L40S"), ("L40", "L40"), ("RTX 2060 12GB", "RTX 2060 12GB"),
    ("RTX PRO 6000 Blackwell", "RTX PRO 6000 Blackwell"), ("A100", "A100 40GB"), ("4x4090", "RTX 4090"), ("8 x H100", "H100 80GB"), ("RTX 3090 x2", "RTX 3090"), ("3090", "RTX 3090"), ("A6000", "RTX A6000"),
    ("RTX 5070 Ti + RTX 5090 D", "RTX 5070 Ti"), ("DGX Spark", "GB10"), ("NVIDIA GH200 480GB", "GH200 96GB"), ("AMD MI300X", "MI300X"),
    ("AMD (ROCm)", None), ("8GB NVIDIA (WSL)", None), ("", None),
])
def test_by_name(name: str, card: str | None) -> None:
    found = find_card(name)
    assert (found.name if found else None) == card


def test_a_memory_that_the_name_tells_stands() -> None:
    """Cards with other memory than they were sold with, and slices of one."""
    modded, sliced = find_card("RTX 2080 Ti 22GB"), find_card("A100-SXM4-40GB MIG 1g.5gb")
    assert modded is not None
    assert sliced is not None
    assert (modded.nvml_mib, round(modded.cuda_mib)) == (22 * 1024, 22100)
    assert 4600 < sliced.cuda_mib < 4864


def test_what_cuda_sees_is_less_than_what_nvidia_smi_prints() -> None:
    for card in cards().values():
        assert 0.93 * card.nvml_mib < card.cuda_mib <= card.nvml_mib
    # NVML counts what the driver keeps as used
    device = nvml_memory("NVIDIA GeForce RTX 5090", 32607, 32607 - 32113 + 1000)
    assert device.total_mib == pytest.approx(31.36 * 1024, abs=1)
    assert device.used_mib == pytest.approx(1000, abs=2)
    assert nvml_memory("a new card", 10000, 0).total_mib == pytest.approx(9810)


def test_an_unknown_card_names_the_nearest_and_all() -> None:
    with pytest.raises(UserError, match=r"--gpu RTX 3061: no such card in the table \(did you mean RTX 3060, .*\)\. Give .*--cards.* or --total-mib"):
        card_memory("RTX 3061")
    assert card_memory("T4", 500).used_mib == 500


def node(folder: Path, total: int, free: int) -> None:
    (folder / "node0").mkdir(parents=True)
    (folder / "node0" / "meminfo").write_text(
        f"Node 0 MemTotal:       {total} kB\nNode 0 MemFree:        {free} kB\nNode 0 MemUsed:  1 kB\nNode 0 Active(file):   2048 kB\n"
        "Node 0 Inactive(file): 1024 kB\nNode 0 SReclaimable:   1024 kB\nNode 0 HugePages_Total:     0\n"
    )


def test_the_node_is_read_as_vllm_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    module = sys.modules[Card.__module__]
    monkeypatch.setattr(module, "NODE_FOLDER", tmp_path / "nodes")
    monkeypatch.setattr(module, "CGROUP_FOLDER", tmp_path / "cgroup")
    node(tmp_path / "nodes", 16 * 2**20, 8 * 2**20)
    device = this_node({0, 1})
    assert (device.kind, device.total_mib, device.cores) == ("cpu", 16 * 1024, 2)
    assert device.free_mib == 8 * 1024 + 4
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "cgroup" / "memory.max").write_text("max\n")
    (tmp_path / "cgroup" / "memory.current").write_text("0\n")
    assert this_node().total_mib == 16 * 1024
    (tmp_path / "cgroup" / "memory.max").write_text(str(4 * 2**30))
    (tmp_path / "cgroup" / "memory.current").write_text(str(2**30))
    limited = this_node()
    assert (limited.total_mib, limited.free_mib) == (4096, 3072)


def test_the_table_is_a_function() -> None:
    assert cards_function()["T4"].nvml_mib == 15360


def test_cuda_sees_the_whole_card_under_wsl() -> None:
    """A log: 11.99 GiB of a card of 12282 MiB, of which the desktop holds 1.2."""
    device = nvml_memory("NVIDIA GeForce RTX 4080 Laptop GPU", 12282, 1229, wsl=True)
    assert device.total_mib == 12282
    assert device.used_mib == 1229
    assert nvml_memory("NVIDIA GeForce RTX 4080 Laptop GPU", 12282, 1229).total_mib < 11900


@pytest.mark.parametrize(("kernel", "wsl"), [("5.15.167.4-microsoft-standard-WSL2", True), ("6.8.0-51-generic", False), ("4.4.0-19041-Microsoft", True)])
def test_wsl_is_known_by_its_kernel(kernel: str, wsl: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.release", lambda: kernel)
    assert under_wsl() is wsl
