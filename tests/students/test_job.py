"""One student from base model to evaluation: whole or absent, read back, and the same for the same seed."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from raydistill.config.models import ModelConfig
from raydistill.config.students import GKD, KD, SeqKD
from raydistill.errors import InputError
from raydistill.evaluate.evaluation import Evaluation
from raydistill.models.load import load_model, load_tokenizer
from raydistill.models.trio import bpe_tokenizer, new_model
from raydistill.students.data import Trace
from raydistill.students.job import EVALUATION_FILE, StudentJob, run_job
from raydistill.tasks.arithmetic import Arithmetic, trace

TASK = Arithmetic()
TRAIN, TUNE = TASK.prompts("train"), TASK.prompts("tune")
TRACES = tuple(Trace(prompt.text, trace(prompt.text, "clear", random.Random(0)), ended=True) for prompt in TRAIN[:24])
GOLD = {prompt.text: f"#{prompt.answer}" for prompt in TUNE}

MakeJob = Callable[..., StudentJob]


@pytest.fixture
def make_job(untrained: Path, tmp_path: Path) -> MakeJob:
    base = StudentJob(
        out=tmp_path / "students" / "seqkd-1",
        student=ModelConfig(model=str(untrained / "student")),
        method=SeqKD(method="seqkd", steps=3, batch=4),
        seed=1,
        task=TASK,
        prompts=tuple(TUNE[:10]),
        samples=2,
        max_new_tokens=8,
        traces=TRACES,
    )
    return lambda **changes: replace(base, **changes)


def gkd_fields(untrained: Path) -> dict[str, object]:
    return {
        "method": GKD(method="gkd", steps=2, batch=4),
        "traces": (),
        "teacher": ModelConfig(model=str(untrained / "teacher")),
        "train_prompts": tuple(prompt.text for prompt in TRAIN[:8]),
    }


def kd_fields(untrained: Path) -> dict[str, object]:
    return {"method": KD(method="kd", steps=2, batch=4), "teacher": ModelConfig(model=str(untrained / "teacher"))}


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_folder_holds_a_model_that_loads_and_the_evaluation(make_job: MakeJob, untrained: Path) -> None:
    job = make_job()
    evaluation = run_job(job)
    assert evaluation == Evaluation.read(job.out / EVALUATION_FILE)
    assert evaluation.prompt_ids == tuple(prompt.id for prompt in job.prompts)
    assert [len(row) for row in evaluation.sampled_BG] == [2] * 10
    assert load_file(job.out / "model.safetensors").keys() == load_file(untrained / "student" / "model.safetensors").keys()
    assert load_model(job.out).config.hidden_size == 40
    assert [path.name for path in job.out.parent.iterdir()] == ["seqkd-1"]
    # A trained student is a student: it can be the base of another.
    again = replace(job, out=job.out.with_name("again"), student=ModelConfig(model=str(job.out)), method=None)
    assert run_job(again) == evaluation


def test_a_student_learns_its_traces_and_the_evaluation_says_so(make_job: MakeJob) -> None:
    gold = tuple(Trace(prompt.text, GOLD[prompt.text], ended=True) for prompt in TUNE[:4])
    method = SeqKD(method="seqkd", steps=80, batch=4, lr=5e-3)
    evaluation = run_job(make_job(traces=gold, prompts=tuple(TUNE[:4]), method=method))
    assert evaluation.greedy_B == (True,) * 4
    assert evaluation.truncated == 0
    assert evaluation.length == pytest.approx(3, abs=0.5)
    assert evaluation.styles == {"other": 1.0}


@pytest.mark.parametrize("method", ["seqkd", "kd", "gkd"])
def test_the_same_seed_gives_the_same_files_to_the_bit_and_another_seed_others(make_job: MakeJob, untrained: Path, method: str) -> None:
    fields = {"seqkd": {}, "kd": kd_fields(untrained), "gkd": gkd_fields(untrained)}[method]
    job = make_job(**fields)
    runs = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run_job(replace(job, out=job.out.with_name(name), seed=seed))
        runs.append(files(job.out.with_name(name)))
    assert runs[0] == runs[1]
    assert runs[0]["model.safetensors"] != runs[2]["model.safetensors"]


def test_the_base_is_evaluated_and_not_copied(make_job: MakeJob) -> None:
    job = make_job(method=None, traces=())
    run_job(job)
    assert not list(job.out.glob("*.safetensors"))
    assert (job.out / EVALUATION_FILE).exists()


def test_a_finished_student_is_read_back(make_job: MakeJob) -> None:
    job = make_job()
    first = run_job(job)
    before = {file: file.stat().st_mtime_ns for file in job.out.iterdir()}
    assert run_job(job) == first
    assert {file: file.stat().st_mtime_ns for file in job.out.iterdir()} == before


@pytest.mark.parametrize("change", [{"seed": 2}, {"traces": TRACES[1:]}, {"samples": 1}, {"method": SeqKD(method="seqkd", steps=4)}])
def test_a_student_of_another_job_is_not_taken_for_this_one(make_job: MakeJob, change: dict[str, object]) -> None:
    run_job(make_job())
    with pytest.raises(InputError, match=r"seqkd-1: holds something other"):
        run_job(make_job(**change))


def test_a_foreign_folder_is_left_alone(make_job: MakeJob) -> None:
    job = make_job()
    job.out.mkdir(parents=True)
    (job.out / "thesis.tex").write_text("irreplaceable")
    with pytest.raises(InputError, match="remove it"):
        run_job(job)
    assert files(job.out) == {"thesis.tex": b"irreplaceable"}


def test_a_failure_leaves_no_student_and_the_next_attempt_is_as_if_nothing_had_been(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job()
    with monkeypatch.context() as broken:
        broken.setattr(Evaluation, "to_json", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_job(job)
    unfinished = job.out.with_name("seqkd-1.partial")
    assert not job.out.exists()
    assert not unfinished.exists()
    unfinished.mkdir()
    (unfinished / "stray").write_text("left by a process that was killed")
    run_job(job)
    assert not unfinished.exists()
    assert "stray" not in files(job.out)


def test_gkd_with_another_vocabulary_is_refused_before_any_training(make_job: MakeJob, untrained: Path, tmp_path: Path) -> None:
    tokenizer = bpe_tokenizer(trace.completion_text for trace in TRACES)
    new_model("proxy", tokenizer, 0).save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    fields = gkd_fields(untrained) | {"teacher": ModelConfig(model=str(tmp_path / "other"))}
    with pytest.raises(InputError, match=r"^students\.model: gkd needs the teacher's vocabulary"):
        run_job(make_job(**fields))


@pytest.mark.parametrize("fields", [kd_fields, gkd_fields])
def test_a_teacher_with_the_same_tokens_under_other_ids_is_refused(make_job: MakeJob, untrained: Path, tmp_path: Path, fields: Any) -> None:
    """Nothing else would tell: both have as many tokens, and as many rows."""
    folder = shutil.copytree(untrained / "teacher", tmp_path / "other")
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["1"], vocabulary["2"] = vocabulary["2"], vocabulary["1"]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"^students\.model: g?kd needs .* the student shares 37 of its 39 tokens with the teacher's 39"):
        run_job(make_job(**fields(untrained) | {"teacher": ModelConfig(model=str(folder))}))


def test_a_teacher_that_ends_its_answers_otherwise_is_refused(make_job: MakeJob, untrained: Path, tmp_path: Path) -> None:
    """The student would learn to end with a token at which its engine does not stop."""
    teacher, tokenizer = load_model(untrained / "teacher"), load_tokenizer(str(untrained / "teacher"))
    tokenizer.eos_token = "<unk>"
    for config in (teacher.config, teacher.generation_config):
        config.eos_token_id = tokenizer.eos_token_id
    teacher.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    fields = kd_fields(untrained) | {"teacher": ModelConfig(model=str(tmp_path / "other"))}
    with pytest.raises(InputError, match=r"^students\.model: kd would teach the student to end an answer with '<unk>'.* '<eos>' alone"):
        run_job(make_job(**fields))


def test_a_job_without_its_ingredients_is_refused(make_job: MakeJob, untrained: Path) -> None:
    with pytest.raises(ValueError, match="traces"):
        make_job(traces=())
    with pytest.raises(ValueError, match="teacher"):
        make_job(**gkd_fields(untrained) | {"teacher": None})
    with pytest.raises(ValueError, match="kd needs traces"):
        make_job(**kd_fields(untrained), traces=())
    with pytest.raises(ValueError, match="train prompts"):
        make_job(**gkd_fields(untrained) | {"train_prompts": ()})
    half = GKD(method="gkd", on_policy=0.5)
    with pytest.raises(ValueError, match="gkd needs traces"):
        make_job(**gkd_fields(untrained) | {"method": half})
