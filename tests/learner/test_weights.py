"""What leaves a learner and comes back: exported weights, saved folders, reset, checkpoints."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from raydistill.errors import InputError
from raydistill.learner.batch import LoraSpec
from raydistill.models.weights import Digest, unpack

LORA = LoraSpec(rank=4, alpha=8.0)


def _run(learner, make_batch, steps: int = 10) -> list[dict[str, float]]:
    return [learner.update(*make_batch(seed=step, size=8)) for step in range(steps)]


def _weights(learner) -> dict[str, torch.Tensor]:
    return {name: tensor for bucket in learner.export(2**30) for name, tensor in unpack(bucket)}


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("tied", [False, True])
def test_export_before_a_step_is_the_checkpoint_itself(worker, tiny_model, tied_model, tied: bool) -> None:
    folder = tied_model if tied else tiny_model
    exported = _weights(worker(model=folder))
    assert _same(exported, load_file(f"{folder}/model.safetensors"))
    assert ("lm_head.weight" in exported) is not tied


def test_export_is_what_deepspeed_itself_writes(worker, make_batch, tmp_path) -> None:
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    learner = worker(persistence_threshold=0)
    _run(learner, make_batch, steps=2)
    learner.save_checkpoint(tmp_path / "checkpoint")
    expected = get_fp32_state_dict_from_zero_checkpoint(str(tmp_path / "checkpoint"), tag="state")
    assert _same(_weights(learner), dict(expected))


def test_buckets_keep_the_cap_and_the_digest_is_that_of_one_bucket(worker, make_batch) -> None:
    learner = worker()
    cap = 30_000  # above the largest tensor (96 x 64 x 4 bytes), below all of them
    buckets = list(learner.export(cap))
    assert len(buckets) > 3
    assert all(sum(packed.data.nbytes for packed in bucket) <= cap for bucket in buckets)
    digests = []
    for whole in (buckets, list(learner.export(2**30))):
        digest = Digest()
        for bucket in whole:
            digest.add(bucket)
        digests.append(digest.hexdigest())
    assert digests[0] == digests[1]
    assert [packed.name for bucket in buckets for packed in bucket] == [packed.name for packed in next(iter(learner.export(2**30)))]


def test_never_more_than_a_bucket_is_gathered(worker, monkeypatch) -> None:
    import deepspeed

    learner, gathered = worker(persistence_threshold=0), []
    original = deepspeed.zero.GatheredParameters

    def spy(parameters, **options):
        gathered.append(sum(parameter.ds_numel * 4 for parameter in parameters))
        return original(parameters, **options)

    monkeypatch.setattr(deepspeed.zero, "GatheredParameters", spy)
    list(learner.export(30_000))
    assert len(gathered) > 3
    assert max(gathered) <= 30_000


def test_exported_weights_are_copies(worker, make_batch) -> None:
    learner = worker()
    before = list(learner.export(2**30))
    content = [packed.data.copy() for packed in before[0]]
    _run(learner, make_batch, steps=1)
    assert all((packed.data == copy).all() for packed, copy in zip(before[0], content, strict=True))


def test_lora_export_is_pefts_own_merge(worker, tiny_model, make_batch) -> None:
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    learner = worker(lora=LORA, lr=1e-2)
    _run(learner, make_batch, steps=3)
    exported = _weights(learner)

    reference = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model),
        LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    adapters = {name: p.detach().clone() for name, p in _full_parameters(learner) if ".lora_" in name}
    assert any(value.abs().max() > 0 for name, value in adapters.items() if "lora_B" in name)
    set_peft_model_state_dict(reference, {name.replace(".default.", "."): value for name, value in adapters.items()})
    merged = reference.merge_and_unload().state_dict()
    assert exported.keys() == merged.keys()
    assert max((exported[name] - merged[name]).abs().max().item() for name in merged) < 1e-6


def _full_parameters(learner) -> list[tuple[str, torch.Tensor]]:
    """Gathered parameters under peft's names (one process, whose partition is the whole)."""
    return [(name, p.ds_tensor.view(p.ds_shape)) for name, p in learner._engine.module.named_parameters()]


def test_lora_trains_adapters_only_and_export_leaves_them_alone(worker, tiny_model, make_batch) -> None:
    learner = worker(lora=LORA, lr=1e-2)
    original = load_file(f"{tiny_model}/model.safetensors")
    assert _same(_weights(learner), original)  # B starts at zero
    _run(learner, make_batch, steps=2)
    for name, value in _full_parameters(learner):
        if ".lora_" not in name:
            assert torch.equal(value, original[name.removeprefix("base_model.model.").replace(".base_layer.", ".")]), name
    exported = _weights(learner)
    assert not torch.equal(exported["model.layers.0.mlp.up_proj.weight"], original["model.layers.0.mlp.up_proj.weight"])
    assert torch.equal(exported["model.embed_tokens.weight"], original["model.embed_tokens.weight"])
    twin = worker(lora=LORA, lr=1e-2)
    _run(twin, make_batch, steps=2)
    assert _run(learner, make_batch, steps=2) == _run(twin, make_batch, steps=2)  # one of the two was exported in between


@pytest.mark.parametrize("fields", [{}, {"persistence_threshold": 0}, {"lora": LORA}, {"optimizer": "sgd"}], ids=str)
def test_after_a_reset_the_next_ten_steps_are_the_first_ten(worker, make_batch, fields: dict) -> None:
    learner = worker(**fields)
    start = _weights(learner)
    first = _run(learner, make_batch)
    after = _weights(learner)
    learner.reset()
    assert _same(_weights(learner), start)
    assert _run(learner, make_batch) == first
    assert _same(_weights(learner), after)


@pytest.mark.parametrize("fields", [{}, {"persistence_threshold": 0}, {"lora": LORA}], ids=str)
def test_a_resumed_run_is_bit_equal(worker, make_batch, tmp_path, fields: dict) -> None:
    learner = worker(**fields)
    _run(learner, make_batch, steps=3)
    learner.save_checkpoint(tmp_path / "checkpoint")
    rest = _run(learner, make_batch, steps=3)
    other = worker(**fields)
    _run(other, make_batch, steps=1)
    other.load_checkpoint(tmp_path / "checkpoint")
    assert _run(other, make_batch, steps=3) == rest
    assert _same(_weights(other), _weights(learner))


def test_a_checkpoint_is_replaced_as_a_whole(worker, make_batch, tmp_path) -> None:
    learner = worker()
    for _ in range(2):
        learner.save_checkpoint(tmp_path / "checkpoint")
        (tmp_path / "checkpoint" / "stray").touch()
    learner.save_checkpoint(tmp_path / "checkpoint")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    assert not (tmp_path / "checkpoint" / "stray").exists()


def test_only_checkpoints_of_ones_own_shape_are_loaded(worker, tmp_path) -> None:
    learner = worker()
    with pytest.raises(InputError, match="not a learner checkpoint"):
        learner.load_checkpoint(tmp_path)
    learner.save_checkpoint(tmp_path / "checkpoint")
    mark = tmp_path / "checkpoint" / "raydistill.json"
    mark.write_text(mark.read_text().replace('"world_size": 1', '"world_size": 4'))
    with pytest.raises(InputError, match="world_size 4, and this learner has 1"):
        learner.load_checkpoint(tmp_path / "checkpoint")


@pytest.mark.parametrize("shard_bytes", [2**30, 30_000])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_saved_folder_loads_in_transformers_and_keeps_its_companions(worker, tiny_model, make_batch, tmp_path, shard_bytes, lora) -> None:
    from raydistill.learner.folders import save_model

    learner = worker(lora=lora)
    _run(learner, make_batch, steps=1)
    save_model(learner._exporter, Path(tiny_model), "float32", tmp_path / "teacher", shard_bytes)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "teacher").state_dict()
    assert _same(_weights(learner), saved)
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "teacher" / name).read_bytes() == (Path(tiny_model) / name).read_bytes()
    assert (tmp_path / "teacher" / "model.safetensors").exists() is (shard_bytes == 2**30)
    assert json.loads((tmp_path / "teacher" / "config.json").read_text())["dtype"] == "float32"
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]


def test_a_tied_model_is_saved_once_and_loads_tied(worker, tied_model, make_batch, tmp_path) -> None:
    learner = worker(model=tied_model)
    _run(learner, make_batch, steps=1)
    learner.save(tmp_path / "teacher")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "teacher")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(model.lm_head.weight, _weights(learner)["model.embed_tokens.weight"])


def test_a_folder_that_is_no_model_is_named(worker, tiny_model, tmp_path) -> None:
    with pytest.raises(InputError, match=r"no config\.json$"):
        worker(model=str(tmp_path))


def test_a_checkpoint_whose_names_cannot_be_led_back_is_refused(tiny_model, tmp_path, worker) -> None:
    """transformers also loads a bare body without its `model.` prefix, and would export names an engine does not know."""
    from raydistill.learner.export import Exporter

    tensors = load_file(f"{tiny_model}/model.safetensors")
    save_file({f"other.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="other names"):
        Exporter(AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path)
