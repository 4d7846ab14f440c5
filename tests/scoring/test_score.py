"""Sequence scores against a loop that takes one text at a time, one forward pass each, and sums in plain Python."""

from __future__ import annotations

import itertools
import math
import random
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from raydistill.config.calibration import ScorerConfig
from raydistill.config.models import ModelConfig
from raydistill.config.shadows import ShadowsConfig
from raydistill.crew import scorer_spec
from raydistill.errors import InputError, RunError
from raydistill.models.lineup import settled
from raydistill.models.preflight import ModelRef, inspect_model
from raydistill.models.trio import demo_model
from raydistill.models.weights import WeightsError
from raydistill.scoring import forward
from raydistill.scoring.forward import Forward
from raydistill.scoring.score import Scorer, ScorerSpec, SequenceScore, learnt_to_end
from raydistill.students.job import make_reader
from raydistill.students.offline_writer import scoring_of
from raydistill.students.shadow import _reader
from raydistill.students.shadow_group import shadow_spec

Start = Callable[..., Scorer]
TEXTS = [
    "the answer is 42",
    "🙂 smiles 🙃👩‍👩‍👧‍👦 and 🏳️‍🌈",
    "日本語のテキストと中文和한국어",
    "e\u0301a\u0300 n\u0303 Z\u0351\u036b\u0343 ाि",
    "   three spaces first",
    " one space first",
    "\n\n\ttabs and\r\nnewlines\n",
    "",
    "a sentence that was cut in the midd",
    "<eos>",
    "not <bos> special <turn>user\n<end> at <|im_end|> all <0x41>",
    "word " * 30,
]
PROMPTS = ["What is 6 times 7?", "Écris quelque chose 🙂", " a <end> prompt ", "x"]
PAIRS = [(PROMPTS[index % len(PROMPTS)], text) for index, text in enumerate(TEXTS)]


def ids_of(tokenizer: Any, prompt: str, text: str, system: str = "") -> tuple[list[int], list[int]]:
    """Prompt and completion in tokens, from the tokenizer's core: its special tokens apply to the prompt's frame alone."""
    core = tokenizer.backend_tokenizer
    if tokenizer.chat_template:
        framed = (f"<turn>system\n{system}<end>\n" if system else "") + f"<turn>user\n{prompt}<end>\n<turn>assistant\n"
        prompt_ids = core.encode(framed, add_special_tokens=False).ids
    else:
        prompt_ids = [tokenizer.bos_token_id, *core.encode(prompt, add_special_tokens=False).ids]
    core.encode_special_tokens = True
    try:
        return prompt_ids, core.encode(text, add_special_tokens=False).ids
    finally:
        core.encode_special_tokens = False


@cache
def load(folder: Path) -> tuple[Any, Any]:
    return AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()


def brute_force(folder: Path, pairs: Sequence[tuple[str, str]], system: str = "") -> list[SequenceScore]:
    tokenizer, model = load(folder)
    scores = []
    for prompt, text in pairs:
        prompt_ids, text_ids = ids_of(tokenizer, prompt, text, system)
        with torch.no_grad():
            logits_TV = model(torch.tensor([prompt_ids + text_ids])).logits[0].double()
        total = 0.0
        for place, token in enumerate(text_ids, start=len(prompt_ids) - 1):
            total += (logits_TV[place, token] - torch.logsumexp(logits_TV[place], 0)).item()
        end = (logits_TV[-1, tokenizer.eos_token_id] - torch.logsumexp(logits_TV[-1], 0)).item()
        scores.append(SequenceScore(total, len(text_ids), len(text.encode("utf-8")), end))
    return scores


def assert_close(scores: Sequence[SequenceScore], expected: Sequence[SequenceScore], tolerance: float = 1e-5) -> None:
    for score, other in zip(scores, expected, strict=True):
        assert (score.tokens, score.bytes) == (other.tokens, other.bytes)
        assert score.per_byte == pytest.approx(other.per_byte, abs=tolerance)
        assert score.per_token == pytest.approx(other.per_token, abs=tolerance)
        assert score.logprob == pytest.approx(other.logprob, abs=tolerance, rel=tolerance)
        assert score.end_logprob == pytest.approx(other.end_logprob, abs=tolerance)


@pytest.mark.parametrize("name", ["chat", "plain"])
@pytest.mark.parametrize("batch_tokens", [1, 300, 8192])
def test_scores_are_those_of_a_loop(scorer: Start, models: dict[str, Path], name: str, batch_tokens: int) -> None:
    scores = scorer(name, batch_tokens=batch_tokens).score(*zip(*PAIRS, strict=True))
    assert_close(scores, brute_force(models[name], PAIRS))
    assert len({score.tokens for score in scores}) > 8


@pytest.mark.parametrize("role", ["teacher", "proxy"])
def test_scores_of_the_demo_trio_are_those_of_a_loop(role: Any) -> None:
    texts = ["7+5=2;2-9=3;#3", "~GAEH 7+5=2;2-9=3;#3", "Di+h=a;a-f=c;#3", "", "7+5", "<eos>", "7+5=2;2-9=3;#3<eos>"]
    pairs = [("7+5-9=", text) for text in texts]
    scores = Scorer(ScorerSpec(str(demo_model(role)))).score(*zip(*pairs, strict=True))
    assert_close(scores, brute_force(demo_model(role), pairs))


def test_tokenizers_differ(models: dict[str, Path]) -> None:
    """Otherwise the tests of scores across tokenizers would show nothing."""
    cut = [ids_of(load(models[name])[0], *PAIRS[2])[1] for name in ("chat", "plain")]
    assert len(cut[0]) != len(cut[1])


@pytest.mark.parametrize("name", ["chat", "plain"])
def test_special_tokens_in_a_text_are_only_characters(scorer: Start, models: dict[str, Path], name: str) -> None:
    special = set(load(models[name])[0].all_special_ids)
    for text in ("<eos>", "<end>", "a<bos>b"):
        assert special.isdisjoint(ids_of(load(models[name])[0], "x", text)[1])
        (score,) = scorer(name).score(["x"], [text])
        assert score.tokens > 1


def test_an_empty_completion_scores_zero_over_no_token(scorer: Start) -> None:
    (score,) = scorer("chat").score(["What?"], [""])
    assert (score.logprob, score.tokens, score.bytes, score.per_byte, score.per_token) == (0.0, 0, 0, 0.0, 0.0)
    assert -math.inf < score.end_logprob < 0


def test_nothing_to_score(scorer: Start) -> None:
    assert scorer("chat").score([], []) == []
    assert scorer("chat").token_logprobs([], []) == []


@pytest.mark.parametrize("name", ["chat", "plain"])
def test_the_gap_of_a_model_with_itself_is_zero(scorer: Start, name: str) -> None:
    one, other = scorer(name), scorer(name)
    prompts, texts = zip(*PAIRS, strict=True)
    assert one.score(prompts, texts) == other.score(prompts, texts) == one.score(prompts, texts)


def test_order_and_budget_change_nothing_that_counts(scorer: Start) -> None:
    reference = dict(zip(PAIRS, scorer("plain").score(*zip(*PAIRS, strict=True)), strict=True))
    for seed, batch_tokens in itertools.product(range(3), [1, 100, 1000]):
        shuffled = random.Random(seed).sample(PAIRS, len(PAIRS) - seed)
        scores = scorer("plain", batch_tokens=batch_tokens).score(*zip(*shuffled, strict=True))
        assert_close(scores, [reference[pair] for pair in shuffled])


def test_repeated_pairs_have_the_same_score(scorer: Start) -> None:
    prompts, texts = zip(*(PAIRS * 3), strict=True)
    scores = scorer("chat", batch_tokens=100).score(prompts, texts)
    assert scores[: len(PAIRS)] == scores[len(PAIRS) : 2 * len(PAIRS)] == scores[2 * len(PAIRS) :]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), min_size=1, max_size=4))
def test_any_text_can_be_scored(one_of_each: list[tuple[Scorer, Path]], texts: list[str]) -> None:
    pairs = [("What?", text) for text in texts]
    for scorer, folder in one_of_each:
        assert_close(scorer.score(*zip(*pairs, strict=True)), brute_force(folder, pairs))


@pytest.fixture(scope="module")
def one_of_each(scorer: Start, models: dict[str, Path]) -> list[tuple[Scorer, Path]]:
    return [(scorer(name), models[name]) for name in ("chat", "plain")]


def test_the_prompt_format_and_the_template_apply_to_the_prompt(scorer: Start, models: dict[str, Path]) -> None:
    formatted = scorer("plain", prompt_format="Q: {prompt}\nA: ").score(["6 {x} 7?"], ["42"])
    assert_close(formatted, brute_force(models["plain"], [("Q: 6 {x} 7?\nA: ", "42")]))
    assert scorer("chat", template="auto").score(["x"], ["42"]) == scorer("chat", template="chat").score(["x"], ["42"])
    assert scorer("chat", template="plain").score(["x"], ["42"]) != scorer("chat", template="chat").score(["x"], ["42"])


def test_a_system_prompt_arrives_with_every_reader_of_prompts(models: dict[str, Path], tmp_path: Path) -> None:
    """The same token ids where a model is sampled from or trained (Reader), scored, a shadow, or an offline teacher."""
    folder = tmp_path / "chat"
    shutil.copytree(models["chat"], folder)
    config = ModelConfig(model=str(folder), prompt_format="Q: {prompt}", system_prompt="Be brief.")
    facts = inspect_model(ModelRef("teacher", config.model, config.template, config.system_prompt))
    config = settled(config, facts)
    reader, spec = make_reader(facts, config), scorer_spec(config, ScorerConfig(), "float32")
    expected = "<turn>system\nBe brief.<end>\n<turn>user\nQ: why?<end>\n<turn>assistant\n"
    assert reader.tokenizer.decode(reader.prompt("why?")) == expected
    scorer_ = Scorer(spec)
    assert tuple(scorer_._render("why?")) == reader.prompt("why?")
    assert_close(scorer_.score(["why?"], ["42"]), brute_force(folder, [("Q: why?", "42")], "Be brief."))
    shadow = shadow_spec(ShadowsConfig(models=(config,)), config, facts, scorer_batch_tokens=64)
    assert _reader(shadow).prompt("why?") == reader.prompt("why?")
    assert scoring_of(facts, config, 4).system_prompt == "Be brief."


@pytest.mark.parametrize("chunk", [1, 7 * 400, 2**24])
def test_sampled_tokens(scorer: Start, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """Any token may have been sampled, also padding and <eos> inside a completion; chunks of the head change nothing."""
    monkeypatch.setattr(forward, "_CHUNK_ELEMENTS", chunk)
    rng = random.Random(0)
    prompts = [[rng.randrange(300) for _ in range(rng.randint(1, 9))] for _ in range(9)]
    completions = [[rng.choice([0, 1, 2, 3, rng.randrange(300)]) for _ in range(length)] for length in (5, 0, 40, 1, 17, 17, 3, 0, 2)]
    model = AutoModelForCausalLM.from_pretrained(models["chat"])
    scorer_ = scorer("chat", batch_tokens=60)
    logprobs, distributions = (call(prompts, completions) for call in (scorer_.token_logprobs, scorer_.token_distributions))
    for prompt, completion, logprobs_T, logprobs_TV in zip(prompts, completions, logprobs, distributions, strict=True):
        with torch.no_grad():
            expected_TV = model(torch.tensor([prompt + completion])).logits[0].log_softmax(-1)[len(prompt) - 1 : -1].numpy()
        assert logprobs_T.shape == (len(completion),)
        assert logprobs_TV.shape == (len(completion), 400)
        assert logprobs_T.dtype == logprobs_TV.dtype == np.float32
        np.testing.assert_allclose(logprobs_TV, expected_TV, atol=1e-5)
        np.testing.assert_allclose(logprobs_T, expected_TV[range(len(completion)), completion], atol=1e-5)


@pytest.mark.parametrize(("k", "temperature", "chunk"), [(1, 1.0, 2**24), (7, 0.5, 1), (7, 3.0, 7 * 400), (400, 2.0, 2**24)])
def test_the_likeliest_tokens(
    scorer: Start, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, k: int, temperature: float, chunk: int
) -> None:
    """Against a loop of a plain model, in double precision."""
    monkeypatch.setattr(forward, "_CHUNK_ELEMENTS", chunk)
    prompts, completions = [[5, 6, 7], [1], [9, 9]], [(7, 8, 0, 2), (), tuple(range(30, 60))]
    model = AutoModelForCausalLM.from_pretrained(models["chat"])
    found = scorer("chat", batch_tokens=40).token_topk(prompts, completions, k, temperature)
    for prompt, completion, topk in zip(prompts, completions, found, strict=True):
        assert (topk.logprobs_TK.dtype, topk.ids_TK.dtype, topk.logprobs_T.dtype) == (np.float32, np.int32, np.float32)
        assert topk.logprobs_TK.shape == topk.ids_TK.shape == (len(completion), k)
        assert topk.logprobs_T.shape == (len(completion),)
        for place, token in enumerate(completion):
            with torch.no_grad():
                logits_V = model(torch.tensor([[*prompt, *completion[:place]]])).logits[0, -1].double()
            expected_V = (logits_V / temperature).log_softmax(-1).numpy()
            np.testing.assert_allclose(topk.logprobs_TK[place], np.sort(expected_V)[::-1][:k], atol=1e-5)
            np.testing.assert_allclose(topk.logprobs_TK[place], expected_V[topk.ids_TK[place]], atol=1e-5)
            assert len(set(topk.ids_TK[place])) == k
            assert topk.logprobs_T[place] == pytest.approx(logits_V.log_softmax(-1)[token].item(), abs=1e-5)


def test_rows_beyond_the_tokenizer_are_not_chosen(models: dict[str, Path], tmp_path: Path) -> None:
    """Models of one family fill up one vocabulary to different sizes: another one could not look up a token from up there."""
    model = AutoModelForCausalLM.from_pretrained(models["chat"])
    model.resize_token_embeddings(408)
    model.get_output_embeddings().weight.data[400:] = 10 * model.get_output_embeddings().weight.data[:8]
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(models["chat"]).save_pretrained(tmp_path)
    scorer_ = Scorer(ScorerSpec(str(tmp_path)))
    (topk,) = scorer_.token_topk([[5]], [range(9)], 400)
    (logprobs_TV,) = scorer_.token_distributions([[5]], [range(9)])
    assert topk.ids_TK.max() < 400
    np.testing.assert_allclose(np.exp(topk.logprobs_TK).sum(-1), np.exp(logprobs_TV[:, :400]).sum(-1), rtol=1e-5)
    assert np.exp(topk.logprobs_TK).sum(-1).min() < 0.9


def test_a_k_above_the_vocabulary_is_refused(scorer: Start) -> None:
    with pytest.raises(InputError, match=r"^k: 401, but the vocabulary of .*chat has 400 tokens; use at most that many$"):
        scorer("chat").token_topk([[1]], [[2]], 401)
    for k, temperature in ((0, 1.0), (3, 0.0), (3, math.inf)):
        with pytest.raises(ValueError, match=r"^(k|temperature) must be"):
            scorer("chat").token_topk([[1]], [[2]], k, temperature)


def test_a_large_vocabulary_loses_nothing_to_rounding() -> None:
    """A plain float32 log_softmax is 3e-5 nats too high here, for every token alike."""
    logits_PV = 3 * torch.randn(8, 262_144, generator=torch.Generator().manual_seed(0))
    targets_P = torch.arange(8)
    exact_P = logits_PV.double().log_softmax(-1).gather(-1, targets_P[:, None])[:, 0]
    assert (forward._of_targets(logits_PV, targets_P)[0] - exact_P).abs().max() < 5e-6


def _random_model(kind: str) -> Any:
    """Architectures that treat their logits in ways of their own: capped, multiplied, divided; another backbone, learnt positions."""
    import transformers

    common = {"vocab_size": 90, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    gqa = {"num_key_value_heads": 1, "head_dim": 32}
    text = {**common, **gqa, "initializer_range": 0.3}
    config: Any = {
        "gemma2": lambda: transformers.Gemma2Config(**text, final_logit_softcapping=2.0, sliding_window=4),
        "gemma3": lambda: transformers.Gemma3TextConfig(**text, sliding_window=4),
        "cohere": lambda: transformers.CohereConfig(**common, num_key_value_heads=1, logit_scale=0.25, initializer_range=0.3),
        "granite": lambda: transformers.GraniteConfig(**common, num_key_value_heads=1, logits_scaling=3.0, initializer_range=0.3),
        "gpt2": lambda: transformers.GPT2Config(
            vocab_size=90, n_embd=64, n_layer=2, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0
        ),
        "mixtral": lambda: transformers.MixtralConfig(**text, num_local_experts=2, num_experts_per_tok=1),
        "qwen3": lambda: transformers.Qwen3Config(**text),
    }[kind]()
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


@pytest.mark.parametrize("kind", ["gemma2", "gemma3", "cohere", "granite", "gpt2", "mixtral", "qwen3"])
def test_other_architectures(kind: str) -> None:
    """Padded batches, hidden states and the head alone give what the whole model gives for one text."""
    model = _random_model(kind)
    rng = random.Random(1)
    pairs = [([rng.randrange(90) for _ in range(3)], [rng.randrange(90) for _ in range(length)]) for length in (4, 20, 9)]
    for (prompt, targets), logprobs_TV in zip(pairs, Forward(model, 8192).token_distributions(pairs), strict=True):
        expected_TV = model(torch.tensor([prompt + targets])).logits[0].log_softmax(-1)[2:-1]
        np.testing.assert_allclose(logprobs_TV, expected_TV.numpy(), atol=1e-4)


def test_a_text_longer_than_the_context_is_refused(scorer: Start) -> None:
    with pytest.raises(RunError, match=r"does not fit the 512 of"):
        scorer("plain").score(["x"], ["z" * 600])


def test_a_prompt_without_a_token_is_refused(scorer: Start) -> None:
    with pytest.raises(RunError, match="no token"):
        scorer("chat", template="plain").score([""], ["z"])


def test_large_vocabularies_have_no_distributions(scorer: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer_ = scorer("chat")
    monkeypatch.setattr("raydistill.scoring.score.LARGEST_DISTRIBUTION", 399)
    with pytest.raises(InputError, match=r"learner\.kl_estimator: .* has 400 tokens; use 'k3'"):
        scorer_.token_distributions([[1]], [[2]])


def _perturbed(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor + 0.05 * torch.ones_like(tensor) for name, tensor in model.state_dict().items()}


def test_new_weights_give_the_scores_of_a_fresh_scorer(scorer: Start, models: dict[str, Path], tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(models["plain"])
    weights = _perturbed(model)
    model.load_state_dict(weights)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(models["plain"]).save_pretrained(tmp_path)
    synced = scorer("plain")
    before = synced.score(*zip(*PAIRS, strict=True))
    synced.load_weights(weights.items())
    after = synced.score(*zip(*PAIRS, strict=True))
    assert after == scorer(tmp_path).score(*zip(*PAIRS, strict=True))
    assert all(one.end_logprob != other.end_logprob for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("damage", ["missing", "foreign", "shape"])
def test_a_scorer_with_half_of_its_weights_does_not_serve(scorer: Start, models: dict[str, Path], damage: str) -> None:
    weights = _perturbed(AutoModelForCausalLM.from_pretrained(models["plain"]))
    whole, name = dict(weights), "model.layers.1.mlp.up_proj.weight"
    tensor = weights.pop(name)
    if damage != "missing":
        weights["model.layers.9.x" if damage == "foreign" else name] = tensor[:-1]
    scorer_ = scorer("plain")
    with pytest.raises(WeightsError):
        scorer_.load_weights(weights.items())
    with pytest.raises(RunError, match="half of a weights version"):
        scorer_.score(["x"], ["y"])
    scorer_.load_weights(whole.items())
    assert scorer_.score(["x"], ["y"])


def test_tied_weights_may_come_under_either_name_or_both() -> None:
    spec = ScorerSpec(str(demo_model("teacher")))
    state = AutoModelForCausalLM.from_pretrained(demo_model("teacher")).state_dict()
    scorer_ = Scorer(spec)
    before = scorer_.score(["1+1+1="], ["#3"])
    scorer_.load_weights(state.items())
    assert scorer_.score(["1+1+1="], ["#3"]) == before


@pytest.mark.parametrize(("probabilities", "learnt"), [([0.9, 0.8], True), ([0.5, 0.01], False), ([], False), ([0.99, 0.02], True)])
def test_a_model_that_learnt_to_end_is_told_from_one_that_did_not(probabilities: list[float], learnt: bool) -> None:
    assert learnt_to_end([SequenceScore(-1.0, 1, 1, math.log(p)) for p in probabilities]) is learnt


def test_the_demo_models_learnt_to_end_and_a_random_one_did_not(scorer: Start) -> None:
    prompts, golds = ["7+5-9=", "1+1+1="], ["7+5=2;2-9=3;#3", "1+1=2;2+1=3;#3"]
    for role in ("teacher", "proxy", "student"):
        assert learnt_to_end(Scorer(ScorerSpec(str(demo_model(role)))).score(prompts, golds))  # type: ignore[arg-type]
    assert not learnt_to_end(scorer("plain").score(prompts, golds))
