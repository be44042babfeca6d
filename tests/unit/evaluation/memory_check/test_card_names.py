"""Which card of the table a name is: as NVML gives it, and as people write it. An unknown suffix is another card."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.evaluation.memory_check.card_names import matching, words
from tune_gpu.evaluation.memory_check.cards import cards, find_card, nvml_memory

NVML = [
    # data centre
    ("NVIDIA A100-SXM4-40GB", "A100 40GB"), ("NVIDIA A100-SXM4-80GB", "A100 80GB"), ("NVIDIA A100 80GB PCIe", "A100 80GB"),
    ("NVIDIA A100-PCIE-40GB", "A100 40GB"), ("A100-SXM4-40GB", "A100 40GB"), ("NVIDIA A100-SXM-64GB", None), ("NVIDIA A100X", None),
    ("NVIDIA A800-SXM4-80GB", "A800 80GB"), ("NVIDIA A800 80GB PCIe", "A800 80GB"), ("NVIDIA A800 40GB Active", None),
    ("NVIDIA H100 80GB HBM3", "H100 80GB"), ("NVIDIA H100 PCIe", "H100 PCIe"), ("NVIDIA H100 80GB HBM2e", "H100 80GB"), ("NVIDIA H100 NVL", "H100 NVL"),
    ("NVIDIA H100 64GB HBM2", None), ("NVIDIA H200", "H200"), ("NVIDIA H200 NVL", "H200 NVL"), ("NVIDIA H20", "H20"), ("NVIDIA H20-3e", None),
    ("NVIDIA H800", "H800"), ("NVIDIA H800 PCIe", "H800"), ("NVIDIA GH200 480GB", "GH200 96GB"), ("NVIDIA GH200 120GB", "GH200 96GB"),
    ("NVIDIA GH200 144G HBM3e", "GH200 144GB"), ("NVIDIA B200", "B200"), ("NVIDIA B300 SXM6 AC", "B300"), ("NVIDIA GB200", None), ("NVIDIA GB300", None),
    ("NVIDIA A10", "A10"), ("NVIDIA A10G", "A10G"), ("NVIDIA A10M", None), ("NVIDIA A16", "A16"), ("NVIDIA A2", "A2"), ("NVIDIA A30", "A30"),
    ("NVIDIA A40", "A40"), ("NVIDIA L4", "L4"), ("NVIDIA L20", "L20"), ("NVIDIA L40", "L40"), ("NVIDIA L40S", "L40S"), ("NVIDIA L40G", None),
    ("Tesla T4", "T4"), ("Tesla T4G", None), ("Tesla V100-SXM2-16GB", "V100 16GB"), ("Tesla V100-PCIE-32GB", "V100 32GB"),
    ("Tesla V100-DGXS-32GB", "V100 32GB"), ("Tesla V100-SXM3-32GB-H", None), ("Tesla V100S-PCIE-32GB", None), ("Tesla P100-PCIE-16GB", "P100"),
    # virtual parts of a card have less memory, whatever its name says
    ("NVIDIA A40-48Q", None), ("GRID A100-10C", None), ("GRID T4-16Q", None), ("NVIDIA A10-24Q", None),
    # desktop, and the laptop's card of the same number
    ("NVIDIA GeForce RTX 3060", "RTX 3060"), ("NVIDIA GeForce RTX 3060 Ti", "RTX 3060 Ti"), ("NVIDIA GeForce RTX 3060 Laptop GPU", "RTX 3060 Laptop"),
    ("NVIDIA GeForce RTX 3070 Laptop GPU", None), ("NVIDIA GeForce RTX 3080 Ti", "RTX 3080 Ti"), ("NVIDIA GeForce RTX 3080 Ti Laptop GPU", None),
    ("NVIDIA GeForce RTX 2060", "RTX 2060"), ("NVIDIA GeForce RTX 2060 SUPER", None), ("NVIDIA GeForce RTX 2070 with Max-Q Design", None),
    ("NVIDIA GeForce RTX 2080 SUPER", "RTX 2080 Super"), ("GeForce RTX 2080 Ti", "RTX 2080 Ti"), ("NVIDIA GeForce GTX 1660 SUPER", "GTX 1660 Super"),
    ("NVIDIA GeForce GTX 1660 Ti", None), ("NVIDIA GeForce RTX 4070 Ti SUPER", "RTX 4070 Ti Super"), ("NVIDIA GeForce RTX 4090", "RTX 4090"),
    ("NVIDIA GeForce RTX 4090 D", "RTX 4090 D"), ("NVIDIA GeForce RTX 4090 Laptop GPU", "RTX 4090 Laptop"), ("NVIDIA GeForce RTX 5090 D v2", None),
    ("NVIDIA GeForce RTX 5070 Ti Laptop GPU", "RTX 5070 Ti Laptop"), ("NVIDIA TITAN RTX", "TITAN RTX"), ("NVIDIA TITAN V", "TITAN V"),
    ("NVIDIA TITAN Xp", None), ("NVIDIA Graphics Device", None),
    # workstation
    ("Quadro RTX 6000", "Quadro RTX 6000"), ("Quadro RTX 6000 with Max-Q Design", None), ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
    ("NVIDIA RTX 5000 Ada Generation Laptop GPU", None), ("NVIDIA RTX 4000 SFF Ada Generation", None), ("NVIDIA RTX A6000", "RTX A6000"),
    ("NVIDIA RTX A5000 Laptop GPU", None), ("NVIDIA RTX A2000 12GB", "RTX A2000 12GB"), ("NVIDIA RTX A2000", "RTX A2000"),
    ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX PRO 6000 Blackwell"), ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000 Blackwell"),
    ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "RTX PRO 6000 Blackwell"), ("NVIDIA RTX PRO 5000 Blackwell", "RTX PRO 5000 Blackwell"),
    ("NVIDIA RTX PRO 5000 Blackwell Generation Laptop GPU", None), ("NVIDIA RTX PRO 4000 Blackwell SFF Edition", None),
    # memory that is the host's
    ("NVIDIA GB10", "GB10"), ("NVIDIA Thor", None), ("Orin (nvgpu)", None),
    ("AMD Instinct MI300X", "MI300X"), ("AMD Instinct MI300X OAM", "MI300X"), ("AMD Radeon RX 7900 XTX", "RX 7900 XTX"), ("AMD Radeon RX 7900 XT", None),
]  # fmt: skip
PEOPLE = [
    ("H20-141GB", "H20 141GB"), ("H20 3e", None), ("H20 96GB", "H20"), ("h100 sxm5 80gb", "H100 80GB"), ("H100 NVL 94GB", "H100 NVL"),
    ("A100 PCIe", "A100 40GB"), ("RTX 4090 48GB", "RTX 4090 48GB"), ("RTX3080-20GB", "RTX 3080 20GB"), ("RTX 2060 Super", None),
    ("RTX 3060 Mobile", None), ("RTX 2060 12GB", "RTX 2060 12GB"), ("RTX 5060 Ti 16GB", "RTX 5060 Ti 16GB"), ("RTX 5060 Ti", "RTX 5060 Ti"),
    ("RTX 3050", "RTX 3050 8GB"), ("L4 (g6.xlarge)", "L4"), ("A100 (max-q)", None), ("4x RTX 3090", "RTX 3090"), ("RTX 6000", None),
    ("RTX 3090 + H20-3e", None), ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "MIG 1g.10gb"), ("NVIDIA A100-SXM4-40GB MIG 1c.3g.20gb", "MIG 3g.20gb"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "card"), [*NVML, *PEOPLE])
def test_a_name_is_the_card_of_all_its_words_or_none(name: str, card: str | None) -> None:
    found = find_card(name)
    assert (found.name if found else None) == card


@given(st.sampled_from(sorted(cards())), st.sampled_from(["3e", "q", "laptop", "mobile", "super", "d", "v2", "sff", "48c", "zz"]))
def test_an_unknown_suffix_is_never_the_card_without_it(name: str, suffix: str) -> None:
    found = matching(f"{name} {suffix}", cards())
    given = {word for word in words(f"{name} {suffix}") if not word.endswith("gb")}  # a memory that only the name tells stands
    assert found is None or words(found) >= given


@given(st.sampled_from(sorted(cards())), st.sampled_from(["NVIDIA {}", "NVIDIA GeForce {}", "{} GPU", "  {}  ", "2x {}"]), st.booleans())
def test_every_card_is_found_by_its_own_name(name: str, form: str, small: bool) -> None:
    written = form.format(name)
    found = find_card(written.lower() if small else written)
    assert found == cards()[name]


def test_an_h20_3e_has_its_own_memory_and_not_the_h20s() -> None:
    device = nvml_memory("NVIDIA H20-3e", 143771, 0)
    assert (device.name, device.total_mib) == ("NVIDIA H20-3e", pytest.approx(143771 * 0.981))


def test_a_card_that_shares_the_hosts_memory_is_known_by_the_table() -> None:
    assert [name for name, card in cards().items() if card.shares_host_memory] == ["GB10"]
