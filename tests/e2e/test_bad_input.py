"""Bad input ends with exit code 2 and one line that names the field and the cure, and leaves nothing behind."""

import json
import shutil

import pytest

from raydistill.models.trio import demo_model


def copy_of(role, tmp_path):
    folder = tmp_path / role
    shutil.copytree(demo_model(role), folder)
    return folder


def assert_refused(ended, folder, *names):
    assert ended.code == 2, ended.err
    lines = ended.err.strip().splitlines()
    assert len(lines) == 1, ended.err
    for name in names:
        assert name in lines[0]
    assert not folder.exists()


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("knob.etta=1", ["knob", "did you mean 'eta'"]),
        ("knob.eta=nan", ["knob.eta", "finite"]),
        ("knob.eta=.inf", ["knob.eta", "finite"]),
        ("learner.kl_estimator=k4", ["learner.kl_estimator", "k3"]),
        ("calibration.samples=1", ["calibration.samples"]),
        ("rollout.top_p=0.9", ["rollout", "top_p 1"]),
        ("teacher.model=no/such/folder/here", ["teacher.model"]),
        ("teacher.model=demo:techer", ["teacher.model", "demo:teacher"]),
        ("proxy.model=demo:student", ["proxy.model", "students.model"]),
        ("knob.target={student_ratio: -0.5}", ["knob.target.student_ratio", "greater than 0"]),
        ("proxy=null", ["proxy", "or give shadows"]),
        ("shadows.models=[{model: demo:student}]", ["proxy", "proxy=null"]),
        ("rollout.workers=500", ["CPU", "500", "available"]),
    ],
)
def test_fields(run, tmp_path, override, names):
    out = tmp_path / "run"
    assert_refused(run(override, "--out", str(out)), out, *names)


def test_a_model_that_is_pickle_only(run, tmp_path):
    model, out = copy_of("teacher", tmp_path), tmp_path / "run"
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert_refused(run(f"teacher.model={model}", "--out", str(out)), out, "teacher.model", "safetensors")


def test_a_tokenizer_without_its_leading_bos(run, tmp_path):
    model, out = copy_of("proxy", tmp_path), tmp_path / "run"
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["post_processor"] = None
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert_refused(run(f"proxy.model={model}", "--out", str(out)), out, "proxy.model", "<bos>")


@pytest.mark.parametrize(
    ("lines", "names"),
    [(['{"q": "1+1?", "answer": "2"}'], ["task.question", "question"]), ([], ["task.data.train"]), (["{broken"], ["task.data.train"])],
)
def test_data(run, tmp_path, lines, names):
    data, out = tmp_path / "data.jsonl", tmp_path / "run"
    data.write_text("".join(line + "\n" for line in lines))
    ended = run("task.kind=maths", f"task.data.train={data}", "students=null", "--out", str(out))
    assert_refused(ended, out, *names)


def test_a_folder_that_holds_something_else(run, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    ended = run("--out", str(tmp_path))
    assert (ended.code, len(ended.err.strip().splitlines())) == (2, 1)
    assert str(tmp_path) in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]
