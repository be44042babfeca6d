"""Models with real weights, served by the real vLLM: SmolLM2 writes sense and counts as transformers does, MiniLM embeds as its authors do."""

from __future__ import annotations

import math
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest

from tests.services.conftest import PORTS, toy
from tune_gpu.common.metric import Protocol
from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.services.models import resolve_llm
from tune_gpu.services.running import Endpoint
from tune_gpu.services.vllm.launch import ForkServer
from tune_gpu.services.vllm.named_models import MINILM, SMOLLM2
from tune_gpu.services.vllm.server import VllmServer
from tune_gpu.workload.sessions.drive import run_sessions
from tune_gpu.workload.sessions.filling import fill
from tune_gpu.workload.sessions.habits import Habits
from tune_gpu.workload.sessions.values import Message, PlannedSession, PlannedTurn, Role, SessionWindow
from tune_gpu.workload.stages import Stage
from tune_gpu.workload.traffic import Traffic

pytest.importorskip("vllm")
PASSAGE = (
    "The Great Wall of China is a series of fortifications that were built across the historical northern borders of ancient Chinese states "
    "as protection against nomadic groups from the steppe. Several walls were built from as early as the 7th century BC, and the best known "
    "sections of the wall were built by the Ming dynasty between 1368 and 1644."
)
SENTENCES = [
    "A man is eating food.",
    "A man eats a piece of bread.",
    "The central bank raised its interest rate by 25 basis points.",
    "Öl, naïve café – 12,345.67 €!",
    "The quick brown fox jumps over the lazy dog. " * 15,
]


def served(host: ForkServer, name: str, **change: Any) -> Iterator[openai.OpenAI]:
    server = VllmServer(toy(model=name, load_format="auto", cpu_cores="0-1", **change), device="cpu", port_range=PORTS, fork_server=host)
    server.start()
    with openai.OpenAI(base_url=f"{server.base_url}/v1", api_key=server.api_key, max_retries=0) as client:
        yield client
    server.stop()


@pytest.fixture(scope="module")
def smollm2(host: ForkServer) -> Iterator[openai.OpenAI]:
    yield from served(host, SMOLLM2, block_size=32, extra_args={"enable-prompt-tokens-details": True})


@pytest.fixture(scope="module")
def minilm(host: ForkServer) -> Iterator[openai.OpenAI]:
    yield from served(host, MINILM, max_model_len=None, extra_args={"runner": "pooling"})


def only_model(client: openai.OpenAI) -> str:
    (model,) = client.models.list().data
    return model.id


@pytest.mark.parametrize(
    ("question", "word"),
    [("What is the capital of France?", "Paris"), ("What is the chemical symbol of water?", "H2O"), ("Which planet is called the Red Planet?", "Mars")],
)
def test_it_answers_a_question_through_its_chat_template(smollm2: openai.OpenAI, question: str, word: str) -> None:
    said = smollm2.chat.completions.create(
        model=only_model(smollm2), messages=[{"role": "user", "content": question}], temperature=0, max_completion_tokens=64
    )
    print(question, "->", said.choices[0].message.content)
    assert word in (said.choices[0].message.content or "")
    assert said.choices[0].finish_reason == "stop", "the template's end of a turn ends it"
    assert said.usage is not None
    assert said.usage.prompt_tokens > 30, "the template adds the model's own system prompt"


def session_of(name: str, *says: str, past: tuple[Message, ...] = (), tokens: int | None = 8, **more: Any) -> PlannedSession:
    turns = tuple(PlannedTurn(number, text, None, "That is how it is.", tokens, 0.0, **more) for number, text in enumerate(says))
    return PlannedSession(name, "home", 0.0, (Message(Role.SYSTEM, PASSAGE),), (), past, turns)


def counted(endpoint: Endpoint, name: str) -> float:
    """Return the sum of a metric of the server."""
    asked = urllib.request.Request(f"{endpoint.url}/metrics", headers={"Authorization": f"Bearer {endpoint.key}"})
    with urllib.request.urlopen(asked, timeout=10.0) as answer:
        return sum(float(line.rpartition(" ")[2]) for line in answer.read().decode().splitlines() if line.startswith(f"{name}{{"))


def test_sessions_find_in_its_cache_what_they_have_said_before(smollm2: openai.OpenAI) -> None:
    """Every kind of end of an answer, and the prefix that was filled, by the server's own count."""
    past = (Message(Role.USER, "How long is it?"), Message(Role.ASSISTANT, f"Longer than you think. {PASSAGE}"))
    plan = SessionWindow([
        session_of("a", "Who built it?", "And when?", past=past),
        session_of("b", "Is it long? Answer yes or no.", tokens=None),
        session_of("c", "Tell me everything about it.", tokens=400, barge_in_s=0.0),
        session_of("d", PASSAGE * 14), session_of("e", "Why?", tokens=1000),
    ])  # fmt: skip
    endpoint = Endpoint(str(smollm2.base_url).removesuffix("/v1/"), smollm2.api_key, only_model(smollm2))
    traffic = Traffic((Stage("llm", "llm", Protocol.CHAT),), {"llm": endpoint}, cache_salt="sessions")
    settings = WorkloadSettings(request_timeout_s=120.0, max_tokens=64)
    before = counted(endpoint, "vllm:generation_tokens_total")
    filling = fill(plan, traffic, settings)
    result = run_sessions(plan, traffic, settings, Habits(listen_wpm=0.0), seconds=120.0)
    turns = {(turn.place.session, turn.place.number): turn for turn in result.turns if turn.place}
    print({key: [(answer.prompt_tokens, answer.cached_tokens, answer.n_tokens, answer.error) for answer in turn.answers] for key, turn in turns.items()})
    assert (filling.requests, filling.failed) == (2, 0)
    for number in (0, 1):
        answer = turns["a", number].answers[0]
        assert (answer.error, answer.n_tokens) == (None, 8)
        assert answer.prompt_tokens is not None
        assert answer.cached_tokens is not None
        assert answer.prompt_tokens - answer.cached_tokens < 32 + 40, "no more than a block, and what is new"
    assert turns["b", 0].error is None
    assert turns["b", 0].answers[0].n_tokens < 64, "the model ended it"
    assert turns["c", 0].interrupted
    assert turns["c", 0].error is None
    assert turns["c", 0].answers[0].cancelled
    assert [turns[name, 0].error for name in "de"] == ["llm_context_too_long"] * 2
    while counted(endpoint, "vllm:num_requests_running"):
        time.sleep(0.05)
    assert counted(endpoint, "vllm:generation_tokens_total") - before < 400, "the engine stops when the caller speaks"


def test_its_probabilities_are_those_of_transformers(smollm2: openai.OpenAI) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resolve_llm(SMOLLM2)
    ids = AutoTokenizer.from_pretrained(folder).encode(PASSAGE)
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logprobs = torch.log_softmax(reference(torch.tensor([ids])).logits[0, :-1], dim=-1)
    said = smollm2.completions.create(
        model=only_model(smollm2), prompt=ids, max_tokens=1, temperature=0, extra_body={"prompt_logprobs": 1}
    )
    served_logprobs = said.choices[0].prompt_logprobs
    assert served_logprobs[0] is None
    ours = np.array([found[str(token)]["logprob"] for found, token in zip(served_logprobs[1:], ids[1:], strict=True)])
    theirs = logprobs[range(len(ids) - 1), ids[1:]].numpy()
    tops = [max(found, key=lambda token: found[token]["logprob"]) for found in served_logprobs[1:]]
    same_top = np.mean([int(top) == int(best) for top, best in zip(tops, logprobs.argmax(dim=-1), strict=True)])
    perplexity, reference_perplexity = math.exp(-ours.mean()), math.exp(-theirs.mean())
    print(f"perplexity {perplexity:.3f}, of transformers in 32 bits {reference_perplexity:.3f}; same top token {same_top:.3f}; differences of log "
          f"probabilities: mean {np.abs(ours - theirs).mean():.4f}, largest {np.abs(ours - theirs).max():.4f}")
    assert perplexity < 20, "English text is no surprise"
    assert perplexity == pytest.approx(reference_perplexity, rel=0.02)
    assert same_top >= 0.95


def test_embeddings_are_those_of_the_model_itself(minilm: openai.OpenAI) -> None:
    ours = np.array([each.embedding for each in minilm.embeddings.create(model=only_model(minilm), input=SENTENCES).data])
    theirs = as_its_authors_do(SENTENCES)
    cosines = (ours * theirs).sum(axis=1)
    print("cosines with the model in 32 bits:", cosines.round(5))
    assert ours.shape == (len(SENTENCES), 384)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1.0, atol=1e-3)
    assert cosines.min() > 0.999
    assert ours[0] @ ours[1] > 0.6 > 0.2 > ours[0] @ ours[2], "what means the same is near"


def as_its_authors_do(sentences: list[str]) -> np.ndarray:
    """Return the mean of the last layer over the tokens, of length 1 (the model's `modules.json`)."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = resolve_llm(MINILM)
    model, tokenizer = AutoModel.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)
    found = []
    for sentence in sentences:
        with torch.no_grad():
            mean = model(torch.tensor([tokenizer.encode(sentence)])).last_hidden_state[0].mean(dim=0)
        found.append((mean / mean.norm()).numpy())
    return np.array(found)


def test_a_text_longer_than_the_model_reads_is_refused(minilm: openai.OpenAI) -> None:
    """The limit is the authors' (`sentence_bert_config.json`): 256 tokens, not the 512 of the positions."""
    with pytest.raises(openai.BadRequestError, match="256"):
        minilm.embeddings.create(model=only_model(minilm), input="word " * 300)


def test_the_order_of_a_batch_is_that_of_the_request(minilm: openai.OpenAI) -> None:
    whole = [each.embedding for each in minilm.embeddings.create(model=only_model(minilm), input=SENTENCES).data]
    alone = [minilm.embeddings.create(model=only_model(minilm), input=sentence).data[0].embedding for sentence in SENTENCES]
    assert (np.array(alone) @ np.array(whole).T).argmax(axis=1).tolist() == [*range(len(SENTENCES))]
