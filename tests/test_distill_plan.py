"""What a distillation refuses before an actor starts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from raydistill.config.distill import Distill
from raydistill.config.load import load_job
from raydistill.distill_plan import check, show, told
from raydistill.errors import InputError
from raydistill.models.lineup import Role
from raydistill.models.preflight import ModelRef, inspect_model
from raydistill.models.trio import demo_model
from raydistill.scoring.score import Scorer, ScorerSpec
from raydistill.students.data import Trace
from raydistill.students.job import make_reader
from raydistill.students.offline_writer import score_traces, scoring_of, write_offline

CONFIG = Path("configs/distill.yaml")


def refused(*overrides: str) -> str:
    with pytest.raises(InputError) as error:
        check(load_job(Distill, CONFIG, overrides))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["teacher=null"], ["teacher.model"]),
        (["method={method: sft}"], ["'sft'", "no teacher"]),
        (["method.method=gkd", "method.on_policy=1.5"], ["method", "on_policy", "1.5"]),
        (["method.method=gkd", "method.on_policy=-0.1"], ["on_policy"]),
        (["method.jsd_beta=1.01"], ["jsd_beta", "1.01"]),
        (["method.jsd_beta=-1"], ["jsd_beta"]),
        (["method.top_k=0"], ["top_k"]),
        (["method={method: kd, on_policy: 0.5}"], ["on_policy"]),
        (["method={method: seqkd}", "offline=somewhere"], ["offline", "kd"]),
        (["method={method: gkd}", "offline=somewhere"], ["offline", "kd"]),
        (["offline=no/such/folder"], ["no/such/folder/teacher.json", "cannot be read"]),
        (["max_new_tokens=128"], ["max_new_tokens", "rollout.max_model_len"]),
        (["max_new_tokens=500", "rollout.max_model_len=1000"], ["max_new_tokens", "the context of student.model"]),
        (["student.model=demo:proxy", "method.jsd_beta=0.5"], ["method.jsd_beta", "different tokenizers", "method.jsd_beta=0"]),
        (["student.model=demo:proxy", "method.temperature=2"], ["method.temperature", "different tokenizers"]),
        (["student.model=demo:proxy", "method.top_k=5"], ["method.top_k: 5", "method.top_k=null", "method.across=gold"]),
        (["student.model=demo:proxy", "method={method: on_policy_rkl}"], ["on_policy_rkl", "use gkd with method.jsd_beta=0"]),
        (["student.model=demo:proxy", "method={method: sampled_rkl}"], ["sampled_rkl", "use gkd with method.jsd_beta=0"]),
        (["student.model=demo:proxy", "method={method: gkd, across: uld, jsd_beta: 0}"], ["across", "'span' or 'gold'"]),
        (["student.model=demo:proxy", "method={method: kd, across: uld, jsd_beta: 0.5}"], ["method.jsd_beta=0"]),
        (["student.model=demo:proxy", "method={method: kd, across: gold, temperature: 2}"], ["method.temperature=1"]),
        (["student.model=demo:proxy", "method={method: kd, across: golds}"], ["across", "'span', 'uld' or 'gold'"]),
        (["method={method: kd, across: uld}"], ["method.across: 'uld'", "drop it"]),
        (["method={method: on_policy_rkl, across: gold}"], ["unknown field 'across'"]),
        (["method={method: sampled_rkl, top_k: 5}"], ["unknown field 'top_k'"]),
        (["method={method: sampled_rkl, temperature: 2}"], ["unknown field 'temperature'"]),
        (["method={method: sampled_rkl}", "offline=somewhere"], ["offline", "kd"]),
        (["method={method: sampled_rkl}", "teacher=null"], ["teacher.model"]),
        (["student.model=no/such/folder/here"], ["student.model"]),
        (["teacher.prompt_format=<bos>{prompt}"], ["teacher.prompt_format", "<bos> twice"]),
        (["train.processes=500"], ["CPU", "train 500", "available"]),
        (["method.stepps=1"], ["did you mean 'steps'"]),
    ],
)
def test_is_refused_in_one_line(overrides: list[str], names: list[str]) -> None:
    message = refused(*overrides)
    for name in names:
        assert name in message


@pytest.mark.parametrize(
    "method",
    [
        "{method: kd}",
        "{method: kd, across: uld, top_k: 5}",
        "{method: gkd, jsd_beta: 0}",
        "{method: gkd, jsd_beta: 0, across: gold}",
        "{method: seqkd}",
    ],
)
def test_other_tokenizers_are_aligned(method: str) -> None:
    assert not check(load_job(Distill, CONFIG, ["student.model=demo:proxy", f"method={method}"])).same_tokens


def test_the_plan_shows_the_models_and_what_is_odd(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student = shutil.copytree(demo_model("student"), tmp_path / "student")
    generation = json.loads((student / "generation_config.json").read_text()) | {"eos_token_id": [2, 5]}
    (student / "generation_config.json").write_text(json.dumps(generation))
    job = load_job(Distill, CONFIG, [f"student.model={student}"])
    show(job, check(job), tmp_path)
    shown = capsys.readouterr().out
    assert "the teacher's" in shown
    assert "warning: student.model: it stops at '1' (5)" in shown
    alone = load_job(Distill, CONFIG, ["teacher=null", "method={method: sft}", "offline=null"])
    show(alone, check(alone), tmp_path)
    assert "the teacher's" not in capsys.readouterr().out.partition("actors")[0]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ([], "by token: the teacher's 39 likeliest"),
        (["method={method: sampled_rkl}"], "sampled tokens alone"),
        (["student.model=demo:proxy"], "by spans of bytes"),
        (["student.model=demo:proxy", "method={method: kd, across: gold, top_k: 5}"], "by gold, with the teacher's 5 likeliest tokens"),
        (["student.model=demo:proxy", "method={method: kd, across: uld}"], "by uld, with the teacher's 39 likeliest tokens"),
    ],
)
def test_the_plan_says_what_is_compared(overrides: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    job = load_job(Distill, CONFIG, overrides)
    show(job, check(job), Path("runs/plan"))
    assert says in " ".join(capsys.readouterr().out.split())


def test_how_much_a_student_is_told() -> None:
    for override, expected in ((["method.top_k=5"], 5), (["method.top_k=5000"], 39), ([], 39)):
        job = load_job(Distill, CONFIG, override)
        assert told(job, check(job)) == expected


def _role(model: str) -> Role:
    config = load_job(Distill, CONFIG, [f"teacher.model={model}"]).teacher
    assert config is not None
    facts = inspect_model(ModelRef("teacher", model))
    return Role(facts, config.model_copy(update={"model": str(facts.folder), "template": facts.template}))


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two traces, scored by the demo's teacher."""
    teacher, folder = _role("demo:teacher"), tmp_path_factory.mktemp("scored") / "scored"
    scorer = Scorer(ScorerSpec(teacher.config.model))
    traces = [Trace("1+2-3=", "1+2=3;3-3=0;#0", True), Trace("4+5-6=", "4+5=9;9-6=3;#3", True)]
    found = score_traces(lambda p, c: scorer.token_topk(p, c, 8), make_reader(teacher.facts, teacher.config), traces)
    write_offline(folder, scoring_of(teacher.facts, teacher.config, 8), found)
    return folder


def test_scored_traces_of_the_teacher_are_taken(scored: Path) -> None:
    check(load_job(Distill, CONFIG, [f"offline={scored}"]))
    check(load_job(Distill, CONFIG, [f"offline={scored}", "teacher=null"]))
    assert not check(load_job(Distill, CONFIG, [f"offline={scored}", "student.model=demo:proxy"])).same_tokens


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["teacher.model=demo:student"], ["weights", "another teacher"]),
        (["teacher=null", "student.model=demo:proxy"], ["tokens", "another vocabulary"]),
        (["method.temperature=2"], ["temperature"]),
    ],
)
def test_scored_traces_of_others_are_refused(scored: Path, overrides: list[str], names: list[str]) -> None:
    message = refused(f"offline={scored}", *overrides)
    for name in ["teacher.json", *names]:
        assert name in message


def test_scored_traces_that_were_cut_short(scored: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(scored, folder)
    shard = folder / "traces-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    assert "traces-00000.safetensors" in refused(f"offline={folder}")


def test_the_plan_is_shown_with_and_without_a_teacher(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for overrides, told_of in (([], "39 likeliest"), ([f"offline={scored}", "teacher=null"], "8 likeliest")):
        job = load_job(Distill, CONFIG, overrides)
        show(job, check(job), Path("runs/plan"))
        shown = " ".join(capsys.readouterr().out.split())
        assert told_of in shown
        assert "Ray Train" in shown


def test_top_k_is_that_of_the_scored_traces(scored: Path) -> None:
    check(load_job(Distill, CONFIG, [f"offline={scored}", "method.top_k=8"]))
    assert "method.top_k: 3" in refused(f"offline={scored}", "method.top_k=3")
    across = [f"offline={scored}", "student.model=demo:proxy"]
    check(load_job(Distill, CONFIG, [*across, "method={method: kd, across: gold}"]))
    assert "method.top_k: 3" in refused(*across, "method={method: kd, across: gold, top_k: 3}")
    assert "method.across" in refused(f"offline={scored}", "teacher=null", "method={method: kd, across: gold}")


def test_gold_completions_longer_than_the_students_context(tmp_path: Path) -> None:
    student = tmp_path / "short"
    shutil.copytree(demo_model("student"), student)
    config = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 16}))
    message = refused("teacher=null", "method={method: sft}", f"student.model={student}", "max_new_tokens=4")
    assert "its context is 16" in message
