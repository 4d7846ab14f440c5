"""Configs: what is refused, how the message reads, and that a resolved config reads back."""

import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from raydistill.config.describe import fields, json_schema
from raydistill.config.diagnose import Diagnose
from raydistill.config.distill import Distill, DistillMethod
from raydistill.config.evaluate import Evaluate
from raydistill.config.load import dump_run, load_job, load_run, parse_run
from raydistill.config.run import Run
from raydistill.config.students import MethodConfig
from raydistill.config.sweep import Sweep
from raydistill.errors import InputError

STUDENTS = ["students.model.model=demo:student", "students.methods=[{method: seqkd}]"]
_KINDS = (("diagnose", Diagnose), ("distill", Distill), ("evaluate", Evaluate), ("sweep", Sweep))
MINIMAL = {"teacher": {"model": "demo:teacher"}, "proxy": {"model": "demo:proxy"}}


def write(tmp_path: Path, data=MINIMAL) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["knob.etta=1"], ["knob", "'etta'", "did you mean 'eta'"]),
        (["learnr.lr=1"], ["'learnr'", "did you mean 'learner'"]),
        (["task.kind=maths", "task.qestion=q", "task.data.train=x"], ["task", "'qestion'", "did you mean 'question'"]),
        (["task.kind=algebra"], ["task", "algebra", "arithmetic"]),
        (["knob.eta=nan"], ["knob.eta", "finite"]),
        (["knob.eta=.inf"], ["knob.eta", "finite"]),
        (["knob.eta=-1", "knob.denominator=current"], ["knob", "denominator 'anchor'"]),
        (["calibration.samples=1"], ["calibration.samples", "greater than or equal to 2"]),
        (["rollout.top_p=0.9"], ["rollout", "top_p 1"]),
        (["rollout.temperature=0.7"], ["rollout", "temperature 1"]),
        (["rollout.top_k=50"], ["rollout", "top_k 0"]),
        (["calibration.max_new_tokens=128"], ["max_new_tokens", "max_model_len"]),
        (["seeds=[1,1]"], ["seeds", "repeat"]),
        (["name=../elsewhere"], ["name", "folder"]),
        (["teacher.prompt_format=hello"], ["teacher.prompt_format", "{prompt}"]),
        (["knob.eta"], ["knob.eta=-1"]),
        (["seeds=[1]", "seeds.3=1"], ["'seeds.3=1'", "index from 0 to 0"]),
        (["seeds=[1]", "seeds.0.x=1"], ["'seeds.0.x=1'", "no fields"]),
        (["name.x=1", "name=a", "name.y=1"], ["'name.y=1'", "no fields"]),
        (
            ["students.model.model=demo:student", "students.methods=[{method: gkd, on_policy: 1.5}]"],
            ["students.methods.0", "on_policy", "less than or equal to 1"],
        ),
        (
            ["students.model.model=demo:student", "students.methods=[{method: kd, jsd_beta: -0.1}]"],
            ["students.methods.0", "jsd_beta", "greater than or equal to 0"],
        ),
        (
            ["students.model.model=demo:student", "students.methods=[{method: kd, temperature: 0}]"],
            ["students.methods.0", "temperature", "greater than or equal to 0.01"],
        ),
        (["proxy=null"], ["proxy", "missing", "or give shadows"]),
        (["shadows.models=[{model: demo:student}]"], ["proxy", "beside shadows", "proxy=null"]),
        (["proxy=null", "shadows.use=scorer"], ["shadows.models", "required"]),
        (["proxy=null", "shadows.models=[]"], ["shadows.models", "at least 1"]),
        (["proxy=null", "shadows.models=[{model: demo:student}]", "shadows.eps=0"], ["shadows.eps", "greater than 0"]),
        (["proxy=null", "shadows.models=[{model: demo:student}]", "shadows.eps=-.1"], ["shadows.eps", "greater than 0"]),
        (
            ["proxy=null", "shadows.models=[{model: demo:student}]", "shadows.budget_seconds=0"],
            ["shadows.budget_seconds", "greater than 0"],
        ),
        (["proxy=null", "shadows.models=[{model: demo:student}]", "shadows.use=target"], ["shadows.use", "'scorer' or 'influence'"]),
        (["proxy=null", "shadows.models=[{model: demo:student}]", "shadows.combine=best"], ["shadows.combine", "'mean' or 'worst'"]),
        (["students.model.model=demo:student", "students.methods=[{method: sekd}]"], ["students.methods.0", "sekd", "seqkd"]),
        ([*STUDENTS, "knob.target.tolerance=0.1"], ["knob.target.student_ratio", "required"]),
        ([*STUDENTS, "knob.target.student_ratio=0"], ["knob.target.student_ratio", "greater than 0"]),
        ([*STUDENTS, "knob.target.student_ratio=-1"], ["knob.target.student_ratio", "greater than 0"]),
        ([*STUDENTS, "knob.target={student_ratio: 0.5, tolerance: 0}"], ["knob.target.tolerance", "greater than 0"]),
        ([*STUDENTS, "knob.target={student_ratio: 0.5, ratio: 2}"], ["knob.target", "'ratio'", "known fields: student_ratio"]),
        ([*STUDENTS, "knob.target={student_ratio: 0.5, students: 101}"], ["knob.target.students", "less than or equal to 100"]),
        ([*STUDENTS, "knob.target.student_ratio=0.5", "knob.denominator=current"], ["knob", "denominator 'current'", "use 'anchor'"]),
        ([*STUDENTS, "knob.target.student_ratio=0.5", "knob.eta=-1.5"], ["knob", "eta -1.5", "target.max_eta (1)"]),
        (["knob.target.student_ratio=0.5"], ["knob.target", "seqkd", "students.methods"]),
        (
            ["students.model.model=demo:student", "students.methods=[{method: gkd}]", "knob.target.student_ratio=0.5"],
            ["knob.target", "seqkd", "students.methods has none"],
        ),
    ],
)
def test_bad_input_is_one_line_that_names_the_field_and_the_cure(tmp_path, overrides, names):
    with pytest.raises(InputError) as caught:
        load_run(write(tmp_path), overrides)
    message = str(caught.value)
    assert "\n" not in message
    for name in names:
        assert name in message


@pytest.mark.parametrize(("text", "names"), [("a: [", ["YAML"]), ("just text", ["fields"]), (None, ["existing YAML file"])])
def test_unreadable_files(tmp_path, text, names):
    path = tmp_path / "c.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_run(path)
    assert all(name in str(caught.value) for name in [str(path), *names])
    assert "\n" not in str(caught.value)


def test_overrides_are_applied_in_order(tmp_path):
    run = load_run(write(tmp_path), ["knob.eta=1", "knob.eta=-2", "learner.lr=1e-3", "learner.lora.rank=4"])
    assert (run.knob.eta, run.learner.lr, run.learner.lora.rank) == (-2.0, 1e-3, 4)


def test_list_items_are_addressed_by_index(tmp_path):
    methods = [{"method": "seqkd"}, {"method": "gkd"}]
    data = MINIMAL | {"students": {"model": {"model": "demo:student"}, "methods": methods}}
    run = load_run(write(tmp_path, data), ["students.methods.1.steps=7"])
    assert run.students.methods[1].steps == 7


def test_the_resolved_config_reads_back_equal(tmp_path):
    run = load_run(write(tmp_path), ["knob.eta=-0.5", "learner.lora.rank=4"])
    assert parse_run(yaml.safe_load(dump_run(run)), "again") == run


@pytest.mark.parametrize("job", [Run, Distill, Diagnose])
def test_every_field_is_described(job):
    assert [name for name, _, description in fields(job) if not description] == []


def test_on_policy_rkl_is_gkd_as_it_is_by_default():
    gkd, preset = (TypeAdapter(MethodConfig).validate_python({"method": name}).model_dump() for name in ("gkd", "on_policy_rkl"))
    assert preset == gkd | {"method": "on_policy_rkl"}


def test_the_schema_accepts_what_the_models_accept():
    jsonschema.validate(MINIMAL, json_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(MINIMAL | {"nonsense": 1}, json_schema())


def test_shipped_configs_are_valid():
    paths = sorted(Path("configs").rglob("*.yaml"))
    assert paths
    for path in paths:
        kind = next((kind for start, kind in _KINDS if path.name.startswith(start)), Run)
        load_job(kind, path)


def test_importing_configs_loads_nothing_heavy():
    code = (
        "import sys, raydistill.config.load, raydistill.cli; print({'torch', 'ray', 'vllm', 'transformers', 'mlflow'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("method", "completions"),
    [
        ({"method": "seqkd", "samples": 100, "steps": 30, "batch": 4}, 100),
        ({"method": "kd", "samples": 100, "steps": 3, "batch": 4}, 12),
        ({"method": "gkd", "samples": 100, "steps": 30, "batch": 4}, 120),
        ({"method": "gkd", "samples": 100, "steps": 30, "batch": 4, "on_policy": 0.9}, 120),
        ({"method": "gkd", "samples": 10, "steps": 30, "batch": 4, "on_policy": 0.5}, 70),
        ({"method": "sampled_rkl", "samples": 10, "steps": 30, "batch": 4}, 120),
    ],
)
def test_how_many_completions_a_student_learns_from(method, completions):
    assert TypeAdapter(DistillMethod).validate_python(method).completions == completions


@pytest.mark.parametrize("method", [{"method": "sampled_rkl"}, {"method": "kd", "across": "uld"}])
def test_what_the_main_job_does_not_have(method):
    with pytest.raises(ValidationError):
        TypeAdapter(MethodConfig).validate_python(method)
