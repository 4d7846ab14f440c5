"""Each way in which a model or a set of models cannot be used is refused in one line that names the field."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill.errors import InputError
from raydistill.models.checkpoint import read_checkpoint, same_weights, weights_digest
from raydistill.models.load import load_model, load_tokenizer
from raydistill.models.preflight import ModelFacts, ModelRef, inspect_model, preflight
from raydistill.models.template import end_of_turn_id, resolve_template
from raydistill.models.trio import character_tokenizer, demo_model
from raydistill.rollout.transcriber import Transcriber

Model = Callable[..., Path]
Edit = Callable[..., None]
CHAT = "{% for m in messages %}{{ m['role'] }}~{{ m['content'] }}<eos>{% endfor %}{% if add_generation_prompt %}assistant~{% endif %}"


def inspect(folder: Path | str, template: str = "auto", section: str = "teacher") -> ModelFacts:
    return inspect_model(ModelRef(section, str(folder), template))


def refused(folder: Path | str, match: str, template: str = "auto") -> None:
    with pytest.raises(InputError, match=match) as caught:
        inspect(folder, template)
    assert str(caught.value).startswith(("teacher.model: ", "teacher.template: "))
    assert "\n" not in str(caught.value)


def test_the_facts_of_a_model(model: Model) -> None:
    folder = model("m", "teacher")
    loaded = load_model(folder)
    facts = inspect(folder)
    assert facts.parameters == loaded.num_parameters()
    assert facts.embedding_rows == facts.vocab == len(load_tokenizer(folder)) == 39
    assert (facts.model_type, facts.context, facts.template) == ("llama", 128, "plain")
    assert (facts.eos_ids, facts.end_of_turn_id, facts.bos_id) == ((2,), 2, 1)
    assert facts.folder == folder


@pytest.mark.parametrize("role", ["teacher", "proxy", "student"])
def test_the_demo_models_pass_under_their_short_name(role: Any) -> None:
    assert inspect(f"demo:{role}").folder == demo_model(role)


def test_sharded_weights_are_read(model: Model) -> None:
    sharded = model("sharded", max_shard_size="30KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    assert inspect(sharded).parameters == inspect(model("whole")).parameters


def test_a_loaded_model_is_for_inference(model: Model) -> None:
    loaded = load_model(model("m"), "bfloat16")
    assert not loaded.training
    assert all(parameter.dtype is torch.bfloat16 and not parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("/no/such/folder", "no folder /no/such/folder"),
        ("./owner/name", r"no folder \./owner/name"),
        ("missing", "no folder missing; give an existing folder or a hub name"),
        ("demo:tutor", "no demo model 'tutor'; there are demo:teacher, demo:proxy, demo:student"),
    ],
)
def test_a_missing_path_is_refused(path: str, match: str) -> None:
    refused(path, rf"teacher\.model: {match}")


def test_a_hub_name_that_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused("no/such-model", r"teacher\.model: no folder no/such-model here, and the hub ")


def test_a_file_is_no_folder(model: Model) -> None:
    refused(model("m") / "config.json", "is a file; give the folder")


def test_a_folder_without_a_model_is_refused(model: Model, edit: Edit, tmp_path: Path) -> None:
    refused(tmp_path, "is not a model: it has no config.json")
    folder = model("m")
    (folder / "model.safetensors").unlink()
    refused(folder, r"is not a model: it has no model\.safetensors")
    (folder / "config.json").write_text("{")
    refused(folder, "is not readable JSON")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "m.M"}}, "transformers does not know .*'mine'"),
        ({"architectures": ["BertForMaskedLM"]}, "is no causal language model but BertForMaskedLM"),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "is no causal language model"),
    ],
)
def test_what_is_no_causal_language_model_is_refused(model: Model, edit: Edit, fields: dict[str, Any], match: str) -> None:
    folder = model("m")
    edit(folder / "config.json", **fields)
    refused(folder, match)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth"])
def test_pickled_weights_are_refused(model: Model, name: str) -> None:
    folder = model("m")
    (folder / "model.safetensors").rename(folder / name)
    refused(folder, rf"teacher\.model: .* has pickled weights only \({name}\).*convert them")


def test_damaged_weights_are_refused(model: Model) -> None:
    folder = model("m")
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    for damaged in (content[:-4], content + b"....", content[:5], b"PK" + content[2:], b"version https://git-lfs.github.com/spec/v1"):
        weights.write_bytes(damaged)
        refused(folder, "copy the model again")
    weights.write_bytes(content)
    assert inspect(folder)


def test_a_missing_shard_is_refused(model: Model) -> None:
    folder = model("m", max_shard_size="30KB")
    next(folder.glob("*.safetensors")).unlink()
    refused(folder, "is missing or no safetensors file")


def test_a_missing_tokenizer_is_refused(model: Model) -> None:
    folder = model("m")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    refused(folder, "has no usable tokenizer")


def test_a_tokenizer_without_an_end_token_is_refused(model: Model, edit: Edit) -> None:
    folder = model("m")
    edit(folder / "tokenizer_config.json", eos_token=None)
    refused(folder, "has no end token; set eos_token")


@pytest.mark.parametrize("special", [True, False])
def test_a_vocabulary_larger_than_the_embedding_is_refused(model: Model, special: bool) -> None:
    folder = model("m")
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(["<think>"], special_tokens=special)
    tokenizer.save_pretrained(folder)
    refused(folder, r"is larger than the embedding \(40 tokens, 39 rows; the first without a row is '<think>', 39\)")


def test_a_placeholder_of_images_needs_no_row(model: Model) -> None:
    """Gemma 3's text models have one such token more than rows."""
    folder = model("m")
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(["<image_soft_token>"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    assert inspect(folder).vocab == inspect(folder).embedding_rows + 1


def lose_the_rule(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def test_a_tokenizer_that_lost_its_bos_rule_is_refused(model: Model) -> None:
    folder = model("m")
    lose_the_rule(folder)
    refused(
        folder, r"has lost the rule that puts <bos> before a text \(its bos token is made for beginning a text.*restore the post_processor"
    )


@pytest.mark.parametrize(
    ("stated", "bos", "needed"),
    [(True, "<bos>", True), (True, "B", True), (False, "<bos>", False), (None, "<bos>", True), (None, "B", False), (None, None, False)],
)
def test_when_bos_is_needed(model: Model, edit: Edit, stated: bool | None, bos: str | None, needed: bool) -> None:
    """By what tokenizer_config.json states and by the token: `B` stands for one with another job, as in GPT-2 or SmolLM2."""
    folder = model("m")
    lose_the_rule(folder)
    edit(folder / "tokenizer_config.json", add_bos_token=stated, bos_token=bos)
    if needed:
        refused(folder, "has lost the rule")
    else:
        assert inspect(folder).bos_id is None


def test_a_gemma_needs_bos_whatever_its_tokenizer_says(model: Model, edit: Edit) -> None:
    folder = model("m")
    edit(folder / "config.json", model_type="gemma3_text", architectures=["Gemma3ForCausalLM"])
    edit(folder / "tokenizer_config.json", add_bos_token=False)
    assert inspect(folder).bos_id == 1
    lose_the_rule(folder)
    refused(folder, "a Gemma writes nonsense without it")


def test_a_chat_template_may_write_bos_itself(model: Model) -> None:
    folder = model("m")
    lose_the_rule(folder)
    (folder / "chat_template.jinja").write_text("{{ bos_token }}" + CHAT)
    assert inspect(folder).bos_id == 1
    refused(folder, "has lost the rule", template="plain")


def test_templates_are_resolved(model: Model) -> None:
    folder = model("m")
    assert inspect(folder, "plain").template == inspect(folder, "auto").template == "plain"
    refused(folder, r"teacher\.template: 'chat', but the tokenizer has no chat template; use 'plain'", template="chat")
    (folder / "chat_template.jinja").write_text("{{ bos_token }}" + CHAT)
    assert inspect(folder, "chat").template == inspect(folder, "auto").template == "chat"
    assert inspect(folder, "plain").template == "plain"


def test_a_template_that_cannot_render_a_user_turn_is_refused(model: Model) -> None:
    folder = model("m")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('a system turn must come first') }}")
    refused(folder, r"teacher\.template: the chat template cannot render .*a system turn must come first.*use 'plain'")
    assert inspect(folder, "plain").template == "plain"


@pytest.mark.parametrize(
    ("template", "match"),
    [
        (CHAT.replace("m['content']", "m['content'][0]['text']"), "leaves out the text of the prompt, as one does that wants a list of"),
        (CHAT.replace("{{ m['content'] }}", ""), "leaves out the text of the prompt"),
        (CHAT.replace("m['content'] }}", "m['content'] if m['role'] == 'user' }}"), "leaves out the text of the answer"),
        (CHAT.partition("{% if")[0], "ignores add_generation_prompt and ends a prompt before 'assistant~', which the model would have to"),
        ("{{ messages[0]['content'] }}{{ messages[1]['content'][0].upper() }}", "cannot render a single user turn"),
    ],
)
def test_a_template_that_would_not_put_the_prompt_to_the_model_is_refused(model: Model, template: str, match: str) -> None:
    folder = model("m")
    (folder / "chat_template.jinja").write_text("{{ bos_token }}" + template)
    refused(folder, rf"teacher\.template: the chat template {match}.*use 'plain'$")
    assert inspect(folder, "plain").template == "plain"


def test_a_system_prompt_needs_a_template_with_a_place_for_it(model: Model) -> None:
    folder = model("m")

    def asked(template: str = "auto") -> str:
        return inspect_model(ModelRef("teacher", str(folder), template, "1+1")).template

    plain = (
        r"^teacher\.system_prompt: prompts are plain text, which has no system turn; drop it, or put its text into teacher\.prompt_format$"
    )
    with pytest.raises(InputError, match=plain):
        asked()
    (folder / "chat_template.jinja").write_text("{{ bos_token }}" + CHAT)
    assert asked() == "chat"
    with pytest.raises(InputError, match=plain):
        asked("plain")
    rejecting = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    (folder / "chat_template.jinja").write_text("{{ bos_token }}" + rejecting + CHAT)
    with pytest.raises(
        InputError, match=r"^teacher\.system_prompt: the chat template takes no system turn \(.*System role not supported.*; drop"
    ):
        asked()
    ignoring = CHAT.replace("{{ m['content'] }}", "{% if m['role'] != 'system' %}{{ m['content'] }}{% endif %}")
    assert ignoring != CHAT
    (folder / "chat_template.jinja").write_text("{{ bos_token }}" + ignoring)
    with pytest.raises(InputError, match=r"^teacher\.system_prompt: the chat template leaves out its text; drop"):
        asked()


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ '~' + m['content'] + '~ ' if m['role'] == 'user' else m['content'] + eos_token }}{% endfor %}",
        CHAT.replace("m['content']", "('=-' if m['role'] == 'assistant' else '') + m['content']"),
        CHAT.replace("assistant~{%", "assistant~=-{%"),
    ],
)
def test_a_template_may_have_no_header_or_write_thoughts(model: Model, template: str) -> None:
    """As Mistral's, Qwen3's with an empty thought in the history, and R1's with a thought begun in the prompt."""
    folder = model("m")
    (folder / "chat_template.jinja").write_text("{{ bos_token }}" + template)
    assert inspect(folder).template == "chat"


def test_the_end_of_a_turn_is_read_from_the_template() -> None:
    tokenizer = character_tokenizer()
    tokenizer.chat_template = CHAT.replace("<eos>", "\n<unk>\n")
    assert end_of_turn_id(tokenizer, "chat") == tokenizer.unk_token_id
    assert end_of_turn_id(tokenizer, "plain") == tokenizer.eos_token_id
    tokenizer.chat_template = CHAT.replace("<eos>", ";")
    assert end_of_turn_id(tokenizer, resolve_template(tokenizer, "auto")) == tokenizer.eos_token_id


def test_all_end_tokens_are_found(model: Model, edit: Edit) -> None:
    folder = model("m")
    edit(folder / "generation_config.json", eos_token_id=[3, 2, 39])
    assert inspect(folder).eos_ids == (2, 3)  # there is no row 39
    assert inspect(folder).warnings == ()


def test_an_end_token_that_the_config_leaves_out_is_its_class_s(model: Model, edit: Edit) -> None:
    """A Llama stops at 2 unless its config says otherwise: as an engine knows, the facts must know."""
    folder = model("m")
    edit(folder / "config.json", eos_token_id=None)
    edit(folder / "generation_config.json", eos_token_id=None)
    edit(folder / "tokenizer_config.json", eos_token="<unk>")
    assert inspect(folder).eos_ids == (3, 2)
    assert Transcriber(str(folder)).stop_ids == {2, 3}


def test_a_generation_config_that_cannot_be_used_is_refused(model: Model, edit: Edit) -> None:
    folder = model("m")
    edit(folder / "generation_config.json", eos_token_id="two")
    refused(folder, r"teacher\.model: config\.json or generation_config\.json of .* cannot be used \(.*copy the model again")
    (folder / "generation_config.json").write_text("{")
    refused(folder, r"generation_config\.json is not readable JSON")


def test_an_ordinary_token_that_stops_generation_is_warned_of(model: Model, edit: Edit) -> None:
    folder = model("m")
    edit(folder / "generation_config.json", eos_token_id=[5, 2])
    (warning,) = preflight(ModelRef("teacher", str(folder)), None).warnings
    assert warning.startswith("teacher.model: it stops at '1' (5), an ordinary token of its tokenizer")
    assert "set eos_token_id in its config.json and generation_config.json" in warning


def test_a_model_that_does_not_stop_where_its_template_ends_a_turn(model: Model, edit: Edit) -> None:
    """A teacher would never end; a student is taught another end; a proxy does not generate."""
    chat, plain = model("chat", "teacher"), model("plain", seed=1)
    (chat / "chat_template.jinja").write_text("{{ bos_token }}" + CHAT.replace("<eos>", "<unk>"))
    with pytest.raises(InputError) as caught:
        preflight(ModelRef("teacher", str(chat)), None)
    assert str(caught.value) == (
        "teacher.model: its chat template ends a turn with <unk>, but it stops at <eos> alone, so that its completions would run on until "
        "they are cut off; add 3 to eos_token_id in its generation_config.json, or use the template 'plain'"
    )
    (warning,) = preflight(ModelRef("teacher", str(plain)), None, [ModelRef("students.model", str(chat))]).warnings
    assert warning.startswith(
        "students.model.model: its chat template ends a turn with <unk>, but it stops at <eos> alone; it is taught to"
    )
    assert "add 3 to eos_token_id" in warning
    assert not any("ends a turn" in warning for warning in preflight(ModelRef("t", str(plain)), ModelRef("proxy", str(chat))).warnings)
    assert preflight(ModelRef("teacher", str(chat), "plain"), None).warnings == ()
    edit(chat / "generation_config.json", eos_token_id=[2, 3])
    assert preflight(ModelRef("teacher", str(chat)), None).warnings == ()


@pytest.mark.parametrize("name", ["eos_token", "bos_token"])
def test_a_special_token_that_was_made_up_is_refused(model: Model, edit: Edit, name: str) -> None:
    """transformers gives it the next id, where a padded embedding has an untrained row."""
    folder = model("m")
    loaded = load_model(folder)
    loaded.resize_token_embeddings(64)
    loaded.save_pretrained(folder)
    assert inspect(folder).embedding_rows == 64
    edit(folder / "tokenizer_config.json", **{name: "<|end|>"})
    refused(
        folder, rf"the {name} '<\|end\|>' of .* is not in its tokenizer\.json, so that the model never saw it; set {name} in tokenizer_c"
    )


def test_a_vocabulary_size_that_is_not_the_embedding_s_is_refused(model: Model, edit: Edit) -> None:
    folder = model("m")
    edit(folder / "config.json", vocab_size=45)
    refused(folder, r"vocab_size in the config\.json of .* is 45, but the embedding has 39 rows; set vocab_size to 39$")


def test_weights_without_an_output_layer_are_refused_unless_tied(model: Model, edit: Edit) -> None:
    """transformers would make one up, of random numbers."""
    from safetensors.torch import load_file, save_file

    folder = model("m")
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    refused(folder, r"have no output layer beside model\.embed_tokens\.weight, .*set tie_word_embeddings to true if they were")
    edit(folder / "config.json", tie_word_embeddings=True)
    assert inspect(folder)


def test_the_set(model: Model) -> None:
    references = [ModelRef(name, str(model(name, role))) for name, role in (("teacher", "teacher"), ("proxy", "proxy"), ("s", "student"))]
    result = preflight(references[0], references[1], references[2:])
    assert [facts.section for facts in result.models] == ["teacher", "proxy", "s"]
    assert result.warnings == ()


def test_a_large_proxy_is_warned_of(model: Model) -> None:
    teacher, proxy, student = (
        ModelRef(name, str(model(name, role))) for name, role in (("t", "student"), ("proxy", "teacher"), ("s", "proxy"))
    )
    warnings = preflight(teacher, proxy, [student]).warnings
    assert [warning.split(" (")[0] for warning in warnings] == [
        "proxy.model: larger than t.model",
        "proxy.model: larger than s.model",
    ]


def test_a_proxy_that_is_the_student_is_refused(model: Model) -> None:
    teacher = ModelRef("teacher", str(model("teacher", "teacher")))
    student = model("student")
    copied = shutil.copytree(student, student.with_name("copied"))
    sharded = model("sharded", max_shard_size="30KB")
    linked = student.with_name("linked")
    linked.symlink_to(student)
    for proxy in (student, copied, sharded, linked):
        with pytest.raises(InputError, match=r"proxy\.model: is the same model as students\.0\.model"):
            preflight(teacher, ModelRef("proxy", str(proxy)), [ModelRef("students.0", str(student))])
    assert preflight(teacher, ModelRef("proxy", str(model("other", seed=1))), [ModelRef("students.0", str(student))])


def test_a_proxy_that_is_the_teacher_is_warned_of(model: Model) -> None:
    folder = str(model("m"))
    assert "is the teacher itself" in preflight(ModelRef("teacher", folder), ModelRef("proxy", folder)).warnings[0]


def test_a_shadow_may_be_the_student_but_that_is_said(model: Model) -> None:
    teacher, student = str(model("t", "teacher")), str(model("s", "student"))
    other = str(model("other", "student", seed=1))
    shadows = [ModelRef(f"shadows.models.{place}", folder) for place, folder in enumerate((student, other, other, teacher))]
    found = preflight(ModelRef("teacher", teacher), None, [ModelRef("students.model", student)], shadows)
    assert [facts.section for facts in found.models] == ["teacher", "students.model", *(ref.section for ref in shadows)]
    assert [warning.split(",")[0].split(";")[0] for warning in found.warnings] == [
        "shadows.models.0.model: is the same model as students.model.model",
        "shadows.models.2.model: is the same model as shadows.models.1.model",
        "shadows.models.3.model: is the teacher itself",
    ]


def test_a_large_shadow_is_warned_of(model: Model) -> None:
    teacher, shadow = ModelRef("teacher", str(model("t", "student"))), ModelRef("shadows.models.0", str(model("s", "teacher")))
    (warning,) = preflight(teacher, None, [], [shadow]).warnings
    assert warning.startswith("shadows.models.0.model: larger than teacher.model")


def test_one_bit_tells_models_apart(model: Model) -> None:
    one, other = model("one"), model("other")
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    assert not same_weights(read_checkpoint("x", one), read_checkpoint("x", other))
    assert weights_digest(read_checkpoint("x", one)) != weights_digest(read_checkpoint("x", other))


def test_a_digest_is_of_the_weights_however_they_are_spread_over_files(model: Model) -> None:
    whole, sharded, other = (model("whole"), model("sharded", max_shard_size="30KB"), model("other", seed=1))
    digests = [weights_digest(read_checkpoint("x", folder)) for folder in (whole, sharded, other)]
    assert digests[0] == digests[1] != digests[2]


def test_headers_are_those_of_safetensors(model: Model) -> None:
    """Against the library: names, shapes, and where the bytes lie."""
    from safetensors.torch import load_file

    folder = model("m")
    tensors = load_file(folder / "model.safetensors")
    found = read_checkpoint("x", folder).tensors
    assert {name: tensor.shape for name, tensor in found.items()} == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    content = (folder / "model.safetensors").read_bytes()
    for name, tensor in found.items():
        values = struct.unpack(f"<{tensors[name].numel()}f", content[tensor.start : tensor.end])
        assert list(values) == tensors[name].reshape(-1).tolist()
