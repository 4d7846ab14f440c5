"""The shipped trio loads as any Hugging Face model does and is as good as the demo needs; the builder's parts do what they say."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from raydistill.errors import InputError
from raydistill.models import pretrain, recipes, trio
from raydistill.models.load import resolve_folder
from raydistill.models.recipes import CORRECTIONS, DEMO, TRIO_RECIPES, TrioRecipe
from raydistill.models.text import encode_completion, render_prompt
from raydistill.tasks.arithmetic import STYLE_SHARES, Arithmetic, trace

TUNE = Arithmetic().prompts("tune")


@cache
def tokenizer_of(role: trio.Role, name: str = "demo"):
    return AutoTokenizer.from_pretrained(trio.demo_model(role, name))


@cache
def model_of(role: trio.Role, name: str = "demo"):
    return AutoModelForCausalLM.from_pretrained(trio.demo_model(role, name))


def texts() -> list[str]:
    """Prompts, and traces of each style."""
    rng = random.Random(0)
    return [text for prompt in TUNE[:50] for text in (prompt.text, *(trace(prompt.text, style, rng) for style in STYLE_SHARES))]


# --- tokenizers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", trio.ROLES)
def test_decoding_gives_back_the_text(role):
    tokenizer = tokenizer_of(role)
    awkward = ["", " ", "~AB  1 = 2 ; # 3", " 7+5", "7 ", trio.CHARACTERS]
    for text in [*texts(), *awkward]:
        assert tokenizer.decode(encode_completion(tokenizer, text)) == text


@pytest.mark.parametrize("role", trio.ROLES)
def test_bos_stands_before_a_prompt_and_nothing_is_appended(role):
    tokenizer = tokenizer_of(role)
    ids = tokenizer("7+5-9=")["input_ids"]
    assert ids == render_prompt(tokenizer, "7+5-9=", "plain")
    assert ids[0] == tokenizer.bos_token_id
    assert ids[1:] == encode_completion(tokenizer, "7+5-9=")
    assert set(tokenizer.all_special_ids).isdisjoint(ids[1:])
    assert tokenizer.chat_template is None


@pytest.mark.parametrize("role", trio.ROLES)
def test_special_tokens_are_not_recognised_in_a_completion_and_foreign_characters_are_unknown(role):
    tokenizer = tokenizer_of(role)
    ids = encode_completion(tokenizer, "1<eos>2é")
    assert tokenizer.eos_token_id not in ids
    assert ids.count(tokenizer.unk_token_id) == 5  # < o s > é: `e` is a letter of the cipher


def test_teacher_and_student_share_a_tokenizer_of_characters_and_the_proxy_has_its_own():
    teacher, student, proxy = (tokenizer_of(role) for role in ("teacher", "student", "proxy"))
    assert teacher.get_vocab() == student.get_vocab()
    assert len(teacher) == len(trio.SPECIAL_TOKENS) + len(trio.CHARACTERS) <= 40
    assert len(proxy) == trio.PROXY_VOCABULARY
    assert set(trio.CHARACTERS) <= set(proxy.get_vocab())
    assert set("".join(texts())) == set(trio.CHARACTERS)
    shorter = [len(encode_completion(proxy, text)) < len(encode_completion(teacher, text)) for text in texts()]
    assert all(shorter)


def test_bpe_is_the_same_each_time():
    assert trio.bpe_tokenizer(texts()).get_vocab() == trio.bpe_tokenizer(texts()).get_vocab()


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("role", "millions"), [("teacher", 0.106), ("proxy", 0.020), ("student", 0.043)])
def test_shipped_model_is_a_llama_of_the_documented_size(role, millions):
    model, tokenizer = model_of(role), tokenizer_of(role)
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert model.config.head_dim == 32
    assert model.config.max_position_embeddings == 128
    assert model.config.vocab_size == len(tokenizer)
    assert model.num_parameters() == pytest.approx(millions * 1e6, rel=0.02)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    for config in (model.config, model.generation_config):
        assert config.eos_token_id == tokenizer.eos_token_id
        assert config.pad_token_id == tokenizer.pad_token_id
        assert config.bos_token_id == tokenizer.bos_token_id


@pytest.mark.parametrize("name", trio.TRIOS)
def test_shipped_folder_is_small_and_holds_safetensors_alone(name: str):
    files = [path for path in trio.demo_model("teacher", name).parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2e6
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    for role in trio.ROLES:
        assert resolve_folder("model", f"{name}:{role}") == trio.demo_model(role, name)
        with safe_open(trio.demo_model(role, name) / "model.safetensors", "pt") as weights:
            assert set(weights.keys()) == set(model_of(role, name).state_dict())


@pytest.mark.parametrize("name", trio.TRIOS)
def test_an_unknown_role_is_refused_with_those_there_are(name: str):
    with pytest.raises(InputError, match=f"teacher.model: no demo model 'shadow'; there are {name}:teacher, {name}:proxy, {name}:student"):
        resolve_folder("teacher.model", f"{name}:shadow")


@pytest.mark.parametrize("role", trio.ROLES)
def test_the_trio_with_corrections_reads_its_mark_and_all_else_as_the_first_does(role: trio.Role):
    tokenizer = tokenizer_of(role, "demo-corrections")
    corrected = [trace(prompt.text, "corrected", random.Random(prompt.id)) for prompt in TUNE[:50]]
    for text in [*texts(), *corrected]:
        assert tokenizer.decode(encode_completion(tokenizer, text)) == text
    if role != "proxy":
        assert [encode_completion(tokenizer, text) for text in texts()] == [encode_completion(tokenizer_of(role), text) for text in texts()]


def test_new_models_follow_their_seed_and_leave_the_global_stream_alone():
    tokenizer = trio.character_tokenizer()
    before = torch.random.get_rng_state()
    first, again, other = (trio.new_model("student", tokenizer, seed).lm_head.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


# --- quality of the shipped models, on a part of the tune split -------------------------------------------------------


def test_teacher_is_right_and_writes_the_mixture():
    quality = pretrain.answer_quality(model_of("teacher"), tokenizer_of("teacher"), TUNE[:200], 2, DEMO)
    assert quality["sampled"] >= 0.985
    assert quality["greedy"] >= 0.99
    for style, share in STYLE_SHARES.items():
        assert quality[style] == pytest.approx(share, abs=0.1)


def test_proxy_finds_clear_traces_natural_and_the_others_not():
    proxy = pretrain.style_logprobs(model_of("proxy"), tokenizer_of("proxy"), TUNE[:200], STYLE_SHARES)
    teacher = pretrain.style_logprobs(model_of("teacher"), tokenizer_of("teacher"), TUNE[:200], STYLE_SHARES)
    assert pretrain.faults(DEMO.gates["proxy"], proxy) == []
    gap = {style: proxy[style] - teacher[style] for style in STYLE_SHARES}
    assert gap["cipher"] < gap["clear"] - 0.1
    assert gap["cipher"] < gap["ramble"] - 0.1


def test_teacher_with_corrections_is_right_and_puts_wrong_steps_right():
    quality = pretrain.answer_quality(
        model_of("teacher", "demo-corrections"), tokenizer_of("teacher", "demo-corrections"), TUNE[:200], 2, CORRECTIONS
    )
    assert quality["sampled"] >= 0.98
    assert quality["recovery"] >= 0.95
    for style, share in CORRECTIONS.task.shares.items():
        assert quality[style] == pytest.approx(share, abs=0.1)


def test_proxy_with_corrections_is_too_weak_for_the_cipher():
    teacher, proxy = (
        pretrain.style_logprobs(
            model_of(role, "demo-corrections"), tokenizer_of(role, "demo-corrections"), TUNE[:200], CORRECTIONS.task.shares
        )
        for role in ("teacher", "proxy")
    )
    assert pretrain.faults(CORRECTIONS.gates["proxy"], proxy) == []
    gap = {style: proxy[style] - teacher[style] for style in proxy}
    assert gap["cipher"] < min(gap["clear"], gap["ramble"], gap["corrected"]) - 0.1


def test_student_with_corrections_has_room_in_both_directions():
    quality = pretrain.answer_quality(
        model_of("student", "demo-corrections"), tokenizer_of("student", "demo-corrections"), TUNE[:200], 2, CORRECTIONS
    )
    assert 0.3 <= quality["sampled"] <= 0.6
    assert 0.1 <= quality["recovery"] <= 0.4


def test_student_has_room_in_both_directions():
    quality = pretrain.answer_quality(model_of("student"), tokenizer_of("student"), TUNE[:200], 2, DEMO)
    assert 0.12 <= quality["sampled"] <= 0.4
    assert quality["greedy"] <= 0.65


# --- the builder ------------------------------------------------------------------------------------------------------


def test_loss_falls_on_the_trace_and_its_eos_alone():
    tokenizer = tokenizer_of("teacher")
    ids_NT, labels_NT = pretrain._batch(tokenizer, [("7+5-9=", "7+5=2;2-9=3;#3"), ("1+1+1=", "#3")])
    kept = labels_NT != pretrain._IGNORED
    assert torch.equal(ids_NT[kept], labels_NT[kept])
    assert [tokenizer.decode(row[keep]) for row, keep in zip(labels_NT, kept, strict=True)] == ["7+5=2;2-9=3;#3<eos>", "#3<eos>"]
    assert tokenizer.decode(ids_NT[1]) == "<bos>1+1+1=#3<eos>" + "<pad>" * 12


def test_padding_does_not_change_a_loss():
    tokenizer, model = tokenizer_of("teacher"), model_of("teacher")
    short, long = ("1+1+1=", "1+1=2;2+1=3;#3"), ("7+5-9=", "~GAEH 7+5=2;2-9=3;#3")
    alone = pretrain._token_losses(model, *pretrain._batch(tokenizer, [short]))
    padded = pretrain._token_losses(model, *pretrain._batch(tokenizer, [short, long]))[0]
    torch.testing.assert_close(padded[: alone.shape[1]], alone[0], rtol=1e-4, atol=1e-5)
    assert padded[alone.shape[1] :].abs().sum() == 0


def test_style_logprobs_equal_a_loop_over_texts():
    role, prompts = "proxy", TUNE[:5]
    tokenizer, model = tokenizer_of(role), model_of(role)
    total, size = 0.0, 0
    for prompt in prompts:
        text = trace(prompt.text, "cipher", random.Random(prompt.id))
        head, tail = render_prompt(tokenizer, prompt.text, "plain"), encode_completion(tokenizer, text)
        logprobs_TV = model(torch.tensor([head + tail])).logits[0].log_softmax(-1)
        total += sum(logprobs_TV[len(head) - 1 + t, id_].item() for t, id_ in enumerate(tail))
        size += len(text)
    assert pretrain.style_logprobs(model, tokenizer, prompts, STYLE_SHARES)["cipher"] == pytest.approx(total / size, rel=1e-4)


def test_greedy_generation_equals_transformers():
    model, tokenizer = model_of("student"), tokenizer_of("student")
    prompt_ids_NT = torch.tensor([render_prompt(tokenizer, prompt.text, "plain") for prompt in TUNE[:20]])
    ids_NT, length_N = pretrain.generate(model, prompt_ids_NT, None, DEMO.max_new_tokens)
    reference_NT = model.generate(prompt_ids_NT, do_sample=False, max_new_tokens=DEMO.max_new_tokens)[:, prompt_ids_NT.shape[1] :]
    for row, length, reference in zip(ids_NT.tolist(), length_N.tolist(), reference_NT.tolist(), strict=True):
        assert row[:length] == reference[:length]
        assert reference[length - 1] == tokenizer.eos_token_id or length == DEMO.max_new_tokens


class Scripted:
    """Stands in for a model: writes the given token ids, whatever it reads."""

    def __init__(self, rows: list[list[int]], eos_token_id: int) -> None:
        self.rows_NT = torch.tensor(rows)
        self.config = type("Config", (), {"eos_token_id": eos_token_id})
        self.position = 0

    def __call__(self, input_ids, past_key_values, use_cache):
        logits_NV = torch.full((len(self.rows_NT), 39), -100.0).scatter(1, self.rows_NT[:, self.position, None], 100.0)
        self.position += 1
        return type("Output", (), {"logits": logits_NV[:, None], "past_key_values": None})


def test_a_special_token_inside_or_a_missing_eos_voids_a_completion():
    tokenizer = tokenizer_of("teacher")
    eos, pad, digit = tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.convert_tokens_to_ids("3")
    filler = [digit] * DEMO.max_new_tokens
    starts = [[digit, eos], [digit, pad, digit, eos], [digit, eos, digit, eos], []]
    rows = [(start + filler)[: DEMO.max_new_tokens] for start in starts]
    found = pretrain.completions(Scripted(rows, eos), tokenizer, TUNE[:4], None, DEMO.max_new_tokens)
    assert found == ["3", None, "3", None]


def test_sampling_follows_its_seed():
    model, tokenizer = model_of("student"), tokenizer_of("student")
    first, again, other = (pretrain.completions(model, tokenizer, TUNE[:20], seed, DEMO.max_new_tokens) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_pretraining_follows_its_seed_and_lowers_the_loss():
    tokenizer = trio.character_tokenizer()
    recipe = recipes.Recipe(steps=20, batch=8, lr=3e-3, decay=0.5, seed=5)

    def trained() -> tuple[float, torch.Tensor]:
        model = trio.new_model("student", tokenizer, recipe.seed)
        assert list(pretrain.pretrain(model, tokenizer, TUNE, recipe, STYLE_SHARES)) == list(range(1, 21))
        return pretrain.style_logprobs(model, tokenizer, TUNE[:20], STYLE_SHARES)["clear"], model.lm_head.weight

    (clear, weights), (_, weights_again) = trained(), trained()
    untrained = pretrain.style_logprobs(trio.new_model("student", tokenizer, recipe.seed), tokenizer, TUNE[:20], STYLE_SHARES)["clear"]
    assert clear > untrained + 0.5
    assert torch.equal(weights, weights_again)


def quick(recipe: TrioRecipe) -> TrioRecipe:
    """One step, whatever comes of it."""
    step = recipes.Recipe(steps=1, batch=2, lr=1e-3, decay=0.0, seed=0)
    return replace(recipe, recipes=dict.fromkeys(trio.ROLES, step), gates={role: {} for role in trio.ROLES})


def test_training_reads_train_and_looks_at_tune_but_never_at_report(monkeypatch):
    asked = []
    prompts = Arithmetic.prompts

    def watched(self, split):
        asked.append(split)
        return prompts(self, split)

    monkeypatch.setattr(Arithmetic, "prompts", watched)
    pretrain.build("proxy", quick(DEMO))
    assert asked == ["train", "tune"]


def test_faults_names_the_measure_and_its_bounds():
    good = {"sampled": 0.25, "greedy": 0.4, "clear": 0.3}
    assert pretrain.faults(DEMO.gates["student"], good) == []
    (fault,) = pretrain.faults(DEMO.gates["student"], good | {"greedy": 0.9})
    assert fault.startswith("greedy is 0.9000, wanted 0.0 to ")
    assert len(pretrain.faults(DEMO.gates["student"], {"sampled": 0.9, "greedy": 0.9})) == 2


def test_an_existing_folder_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(InputError, match="exists"):
        pretrain.build_trio(DEMO, tmp_path, say=print)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", trio.TRIOS)
def test_trio_rebuilt_from_nothing_passes_its_gates(tmp_path: Path, name: str):
    recipe = TRIO_RECIPES[name]
    said: list[str] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pretrain.build_trio(recipe, tmp_path / "trio", said.append)
    finally:
        torch.set_num_threads(threads)
    assert [line.split(":")[0] for line in said] == list(trio.ROLES)
    assert [path.name for path in tmp_path.iterdir()] == ["trio"]
    for role in trio.ROLES:
        folder = tmp_path / "trio" / role
        quality = pretrain._quality(role, AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder), 4, recipe)
        assert pretrain.faults(recipe.gates[role], quality) == []
