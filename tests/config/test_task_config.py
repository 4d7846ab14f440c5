"""Splits with columns of their own, as configs give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from raydistill.config.describe import fields, json_schema
from raydistill.config.load import dump_run, load_run, parse_run
from raydistill.config.run import Run
from raydistill.config.task import DataSetTask
from raydistill.errors import InputError

MODELS: dict[str, Any] = {"teacher": {"model": "demo:teacher"}, "proxy": {"model": "demo:proxy"}, "knob": {"cal_on": "all"}}
VICUNA = {"source": "vicuna.jsonl", "question": "turns", "context": None, "where": None}
KINDS: dict[str, dict[str, Any]] = {"maths": {}, "choice": {}, "instructions": {"checks": [{"kind": "json"}]}}


def run_of(**task: Any) -> Run:
    return parse_run(MODELS | {"task": task}, "test.yaml")


def instructions(own: Any, **more: Any) -> dict[str, Any]:
    return {"kind": "instructions", "data": {"train": "dolly.jsonl", "report": own}, **KINDS["instructions"], "context": "context"} | more


def test_what_a_split_does_not_give_stays_the_task_s_when_read_back() -> None:
    run = run_of(**instructions(VICUNA, gold="response"))
    dumped = yaml.safe_load(dump_run(run))
    assert dumped["task"]["data"] == {"train": "dolly.jsonl", "tune": None, "report": VICUNA}
    assert parse_run(dumped, "again") == parse_run(run.model_dump(), "again") == run
    jsonschema.validate(MODELS | {"task": instructions(VICUNA)}, json_schema())


def test_which_field_gives_what() -> None:
    task = run_of(**instructions({**VICUNA, "group": "category"}, gold="response", group="kind")).task
    assert isinstance(task, DataSetTask)
    assert task.given("report", "group") == ("data.report.group", "category")
    assert task.given("report", "context") == ("data.report.context", None)
    assert task.given("report", "gold") == ("gold", "response")
    assert task.given("train", "group") == task.given("tune", "group") == ("group", "kind")
    cut = run_of(kind="maths", data={"train": {"source": "a.jsonl", "gold": "solution"}}).task
    assert isinstance(cut, DataSetTask)
    assert cut.given("report", "gold") == ("data.train.gold", "solution")


@pytest.mark.parametrize(
    ("overrides", "data"),
    [
        (["task.data.train=b.jsonl"], {"train": "b.jsonl", "report": VICUNA}),
        (["task.data.report=b.jsonl"], {"report": "b.jsonl"}),
        (["task.data.report=null"], {"report": None}),
        (["task.data.report.source=b.jsonl"], {"report": VICUNA | {"source": "b.jsonl"}}),
        (["task.data.report.gold=null"], {"report": VICUNA | {"gold": None}}),
        (["task.data.tune.source=b.jsonl", "task.data.tune.where.level=3"], {"tune": {"source": "b.jsonl", "where": {"level": 3}}}),
        (["task.data.report={source: b.jsonl, gold: x}"], {"report": {"source": "b.jsonl", "gold": "x"}}),
    ],
)
def test_overrides(tmp_path: Path, overrides: list[str], data: dict[str, Any]) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(MODELS | {"task": instructions(VICUNA)}))
    task = load_run(tmp_path / "c.yaml", overrides).task
    assert isinstance(task, DataSetTask)
    assert task.data.model_dump() == {"train": "dolly.jsonl", "tune": None, "report": VICUNA} | data


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"source": "b", "qestion": "x"}, r"^test\.yaml: task\.data\.report: unknown field 'qestion'; did you mean 'question'\?$"),
        ({"source": "b", "limit": 3}, r"^test\.yaml: task\.data\.report: unknown field 'limit'; known fields: .*question"),
        ({"question": "x"}, r"^test\.yaml: task\.data\.report\.source: Field required$"),
        ({"source": "b", "question": None}, r"^test\.yaml: task\.data\.report\.question: .* valid string"),
        ({"source": "b", "where": 3}, r"^test\.yaml: task\.data\.report\.where: "),
        (3, r"^test\.yaml: task\.data\.report: .* valid string"),
    ],
)
def test_bad_fields_are_one_line(kind: str, own: Any, says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        run_of(kind=kind, data={"train": "a.jsonl", "report": own}, **KINDS[kind])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "field"), [("maths", "options"), ("maths", "context"), ("choice", "answer_pattern"), ("instructions", "answer")]
)
def test_a_field_that_the_kind_does_not_have_is_named(kind: str, field: str) -> None:
    with pytest.raises(InputError, match=rf"^test\.yaml: task\.data\.report: unknown field '{field}'; "):
        run_of(kind=kind, data={"train": "a.jsonl", "report": {"source": "b", field: "x"}}, **KINDS[kind])


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (
            instructions({"source": "b", "checks_column": None}, checks=[], checks_column="rules"),
            "data.report.checks_column: nothing grades",
        ),
        (instructions({"source": "b", "checks_column": "x"}, checks=[], reward={"model": "m"}), "data.report.checks_column: .* beside"),
        (instructions("b", few_shot=2), "few_shot: shows reference responses; name task.gold"),
        (
            instructions("b", few_shot=2, gold="x", data={"train": {"source": "a", "gold": None}}),
            "few_shot: shows reference responses; name task.data.train.gold",
        ),
    ],
)
def test_what_a_split_leaves_without_a_grade_or_an_example(task: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        run_of(**task)


def test_checks_of_a_split_alone_are_enough_where_each_has_some() -> None:
    own = {"source": "a", "checks_column": "rules"}
    run_of(kind="instructions", data={"train": own})
    with pytest.raises(InputError, match="nothing grades"):
        run_of(kind="instructions", data={"train": own, "report": "b"})


def test_help_lists_a_split_and_not_its_columns_again() -> None:
    names = [name for name, _, _ in fields()]
    assert "task[maths].data.report" in names
    assert not [name for name in names if ".data.report." in name]
