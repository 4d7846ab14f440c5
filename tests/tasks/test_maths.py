"""The maths task: what it reads, how it splits, which answers it takes, and what it says of data that cannot be used."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from raydistill.errors import InputError
from raydistill.tasks.maths import Maths
from raydistill.tasks.prompt import Prompt, Split
from raydistill.tasks.verifier import Outcome, Verifier

SPLITS: tuple[Split, ...] = ("train", "tune", "report")


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def questions(first: int, last: int) -> list[dict[str, object]]:
    return [{"question": f"What is {n} + 1?", "answer": f"It is {n + 1}.\n#### {n + 1}"} for n in range(first, last)]


def ids(task: Maths) -> dict[Split, set[str]]:
    return {split: {prompt.id for prompt in task.prompts(split)} for split in SPLITS}


@pytest.fixture
def forty(tmp_path: Path) -> str:
    return write(tmp_path / "forty.jsonl", questions(0, 40))


def test_one_file_is_cut_into_three_splits_by_the_question(forty: str, tmp_path: Path) -> None:
    task = Maths({"train": forty}, answer_pattern="#### (.*)", gold="answer")
    assert {split: len(found) for split, found in ids(task).items()} == {"train": 26, "tune": 4, "report": 10}
    assert len(set.union(*ids(task).values())) == 40
    backwards = write(tmp_path / "backwards.jsonl", questions(0, 40)[::-1])
    for split in SPLITS:
        assert Maths({"train": backwards}, answer_pattern="#### (.*)", gold="answer").prompts(split) == task.prompts(split)


def test_a_prompt_has_what_its_columns_say(forty: str) -> None:
    task = Maths({"train": forty}, answer_pattern="#### (.*)", gold="answer")
    for prompt in task.prompts("train"):
        number = int(prompt.text.split()[2])
        assert prompt.answer == str(number + 1)
        assert prompt.gold == f"It is {number + 1}.\n#### {number + 1}"
    assert all(prompt.gold == "" for prompt in Maths({"train": forty}).prompts("train"))


def test_given_splits_share_no_question_and_drop_repeats(tmp_path: Path) -> None:
    files = {
        "train": write(tmp_path / "train.jsonl", questions(0, 30) + questions(0, 5)),
        "tune": write(tmp_path / "tune.jsonl", questions(20, 40) + questions(25, 30)),
        "report": write(tmp_path / "report.jsonl", questions(35, 50)),
    }
    found = ids(Maths(files))
    assert {split: len(found[split]) for split in SPLITS} == {"train": 20, "tune": 15, "report": 15}
    assert len(set.union(*found.values())) == 50


def test_repeats_are_counted(tmp_path: Path) -> None:
    files = {"train": write(tmp_path / "train.jsonl", questions(0, 30) + questions(0, 5))}
    files["report"] = write(tmp_path / "report.jsonl", questions(25, 40))
    task = Maths(files)  # type: ignore[arg-type]
    task.prompts("train")
    assert task.warnings == (f"task.data.train: 10 of 35 rows of {files['train']} repeat a question of another row or split; left out",)


def test_repeats_with_another_answer_are_counted(tmp_path: Path) -> None:
    """Within a file and between splits; the first is kept, that of report before that of train."""
    wrong = [row | {"answer": "#### -1"} for row in questions(0, 30)]
    files: dict[Split, str | None] = {"train": write(tmp_path / "train.jsonl", questions(0, 30) + questions(0, 5) + wrong[:3])}
    files["report"] = write(tmp_path / "report.jsonl", [*wrong[29:], *questions(30, 40)])
    task = Maths(files, answer_pattern="#### (.*)")
    found = {prompt.text: prompt.answer for split in SPLITS for prompt in task.prompts(split)}
    assert found == {f"What is {n} + 1?": "-1" if n == 29 else str(n + 1) for n in range(40)}
    message = f"task.data.train: 9 of 38 rows of {files['train']} repeat a question of another row or split; left out"
    assert task.warnings[0] == f"{message}, 4 of them with another answer than the one that is kept"


def test_a_missing_tune_split_is_cut_from_train_alone(tmp_path: Path) -> None:
    files = {
        "train": write(tmp_path / "train.jsonl", questions(0, 30)),
        "tune": None,
        "report": write(tmp_path / "report.jsonl", questions(20, 40)),
    }
    found = ids(Maths(files))
    assert {split: len(found[split]) for split in SPLITS} == {"train": 18, "tune": 2, "report": 20}
    assert not found["train"] & found["tune"]
    assert not found["report"] & (found["train"] | found["tune"])


def test_a_smaller_limit_is_part_of_a_larger_one(forty: str) -> None:
    eight, three = Maths({"train": forty}, limit=8), Maths({"train": forty}, limit=3)
    assert len(eight.prompts("train")) == 8
    assert three.prompts("train") == eight.prompts("train")[:3]
    assert len(eight.prompts("tune")) == 4


@pytest.mark.parametrize("suffix", ["json", "csv", "parquet"])
def test_other_formats_give_the_same_prompts(forty: str, tmp_path: Path, suffix: str) -> None:
    from datasets import load_dataset

    path = tmp_path / f"forty.{suffix}"
    getattr(load_dataset("json", data_files=forty, split="train"), f"to_{suffix}")(str(path))
    assert Maths({"train": str(path)}).prompts("train") == Maths({"train": forty}).prompts("train")


def test_repeated_questions_are_counted(tmp_path: Path) -> None:
    files = {"train": write(tmp_path / "train.jsonl", questions(0, 30) + questions(0, 5)), "report": None}
    files["report"] = write(tmp_path / "report.jsonl", questions(25, 40))
    task = Maths(files)
    task.prompts("train")
    assert task.warnings[0] == f"task.data.train: 10 of 35 rows of {files['train']} repeat a question of another row or split; left out"


def test_the_filter_and_boxed_answers_of_worked_solutions(tmp_path: Path) -> None:
    rows = [
        {
            "problem": f"Half of {n}?",
            "solution": f"First \\boxed{{7}}. Rather, $\\frac{{{n}}}{{2}}$ is \\boxed{{\\frac{{{n}}}{{2}}}}.",
            "level": f"Level {n % 2}",
        }
        for n in range(1, 41)
    ]
    source = write(tmp_path / "math.jsonl", rows)
    task = Maths({"train": source}, "problem", "solution", gold="solution", answer_pattern="boxed", where={"level": "Level 1"})
    prompts = [prompt for split in SPLITS for prompt in task.prompts(split)]
    assert len(prompts) == 20
    for prompt in prompts:
        n = int(prompt.text[8:-1])
        assert n % 2 == 1
        assert prompt.answer == f"\\frac{{{n}}}{{2}}"
        assert task.verify(prompt, prompt.gold)


def test_a_solution_without_a_box_is_named(tmp_path: Path) -> None:
    source = write(tmp_path / "math.jsonl", [{"question": "a", "answer": "\\boxed{1}"}, {"question": "b", "answer": "\\boxed{} is 2"}])
    with pytest.raises(InputError, match=r"task\.answer_pattern: finds no answer in row 2 of"):
        Maths({"train": source}, answer_pattern="boxed").prompts("train")


def test_no_gold_answers_at_all_are_named(tmp_path: Path) -> None:
    source = write(tmp_path / "null.jsonl", [{"question": str(n), "answer": None} for n in range(9)])
    with pytest.raises(InputError, match=r"task\.answer: row 1 of \S+ has nothing in column 'answer'; fill it or leave the row out"):
        Maths({"train": source}).prompts("train")


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_broken_utf8_is_named(tmp_path: Path, suffix: str) -> None:
    lines = {"jsonl": b'{"question": "a", "answer": "1"}\n{"question": "b\xff", "answer": "2"}\n'}
    lines |= {"json": b'[{"question": "a", "answer": "1"},\n{"question": "b\xff", "answer": "2"}]\n', "csv": b"question,answer\nb\xff,2\n"}
    path = tmp_path / f"broken.{suffix}"
    path.write_bytes(lines[suffix])
    message = r"task\.data\.train: \S+ cannot be read(?: as \w+)?: line 2 is not UTF-8 \(byte 0xff at \d+\); save the file as UTF-8"
    with pytest.raises(InputError, match=message):
        Maths({"train": str(path)}).prompts("train")


def test_numbers_and_columns_of_other_names(tmp_path: Path) -> None:
    rows = [{"problem": f"Double {n}.", "solution": 2 * n, "level": 3} for n in range(10)]
    task = Maths({"train": write(tmp_path / "rows.jsonl", rows)}, question="problem", answer="solution")
    assert all(int(prompt.answer) == 2 * int(prompt.text[7:-1]) for prompt in task.prompts("train"))


@pytest.mark.parametrize(
    ("answer", "completion", "right"),
    [
        ("18", "So she has \\boxed{18} eggs.", True),
        ("18", "16 - 3 = 13, then 13 + 5 = 18\n#### 18", True),
        ("1,234", "#### 1234", True),
        ("1234", "That is 1,234 in all.", True),
        ("0.5", "\\boxed{\\frac{1}{2}}", True),
        ("\\frac{3}{4}", "The answer is $0.75$.", True),
        ("2\\sqrt{3}", "It follows that $x = \\sqrt{12}$.", True),
        ("(1,2)", "\\boxed{(1, 2)}", True),
        ("41", "Add the points from the 5-point questions: 26 + 15 = 41 points\n#### 41", True),
        ("18", "\\boxed{19}", False),
        ("18", "#### 18\n#### 19", False),
        ("18", "I do not know.", False),
        ("18", "", False),
        ("18", "####", False),
        ("(1,2)", "\\boxed{(1, 3)}", False),
        ("\\frac{3}{4}", "$\\frac{4}{3}$", False),
    ],
)
def test_answers(answer: str, completion: str, right: bool) -> None:
    task = Maths({"train": "unread.jsonl"})
    assert task.verify(Prompt(id="", text="", answer=answer, gold=""), completion) is right


@pytest.mark.parametrize(("completion", "style"), [("\\boxed{1}", "boxed"), ("1\n#### 1", "hash"), ("one", "plain"), ("", "plain")])
def test_styles(completion: str, style: str) -> None:
    assert Maths({"train": "unread.jsonl"}).style(completion) == style


def test_in_a_verifier(forty: str) -> None:
    """A tower of powers keeps sympy or the machine busy for ever; the verifier ends it. Workers get no copy of the data."""
    task = Maths({"train": forty}, answer_pattern="#### (.*)", gold="answer")
    prompts = task.prompts("report")[:3]
    assert pickle.loads(pickle.dumps(task))._splits is None
    tower = "\\boxed{9^{9^{9^{9^{9}}}} + 1}"
    with Verifier(task, 1, 3.0) as verifier:
        outcomes = verifier.verify([*prompts, prompts[0]], [*(prompt.gold for prompt in prompts), tower])
    assert outcomes[:3] == [Outcome.RIGHT] * 3
    assert outcomes[3] is not Outcome.RIGHT


BAD_FILES = {
    "empty.jsonl": ("", r"task\.data\.train: \S+empty\.jsonl is empty"),
    "blank.jsonl": ("\n\n", r"task\.data\.train: \S+blank\.jsonl is empty"),
    "header.csv": ("question,answer\n", r"task\.data\.train: \S+header\.csv is empty"),
    "broken.jsonl": (
        '{"question": "a", "answer": "1"}\n{"question": "b",\n',
        r"task\.data\.train: \S+broken\.jsonl cannot be read.*line 2",
    ),
    "deep.jsonl": (
        '{"question": "a", "answer": "1"}\n{"question": "b", "answer": ' + "[" * 100_000 + "\n",
        r"task\.data\.train: \S+deep\.jsonl cannot be read as JSON: line 2: maximum recursion depth",
    ),
    "broken.json": ("[1,", r"task\.data\.train: \S+broken\.json cannot be read"),
    "bytes.jsonl": ("\x00\x01", r"task\.data\.train: \S+bytes\.jsonl cannot be read"),
    "broken.parquet": ("PAR1", r"task\.data\.train: \S+broken\.parquet cannot be read"),
    "question.jsonl": ('{"questoin": "a", "answer": "1"}\n', r"task\.question: \S+ has no column 'question'; did you mean 'questoin'\?"),
    "answer.jsonl": ('{"question": "a", "x": "1"}\n', r"task\.answer: \S+ has no column 'answer' \(its columns: question, x\)"),
    "blanks.jsonl": ('{"question": "a", "answer": "1"}\n{"question": " ", "answer": "2"}\n', r"task\.question: row 2 of \S+blanks\.jsonl"),
    "null.jsonl": ('{"question": "a", "answer": null}\n{"question": "b", "answer": "2"}\n', r"task\.answer: row 1 of \S+null\.jsonl"),
    "few.jsonl": ('{"question": "a", "answer": "1"}\n', r"task\.data\.\w+: no prompt is left"),
}


@pytest.mark.parametrize("name", list(BAD_FILES))
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str) -> None:
    content, message = BAD_FILES[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        Maths({"train": str(tmp_path / name)}).prompts("train")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"task\.data\.report: no file \S+gone\.jsonl"):
        Maths({"train": write(tmp_path / "a.jsonl", questions(0, 9)), "report": str(tmp_path / "gone.jsonl")}).prompts("train")


@pytest.mark.parametrize("source", ["data.txt", "folder", "./owner/name", "/owner/name"])
def test_what_is_neither_a_file_nor_a_hub_name_is_refused(source: str) -> None:
    with pytest.raises(InputError, match=r"task\.data\.train: .* is neither a \.jsonl"):
        Maths({"train": source}).prompts("train")


def test_a_hub_data_set_that_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        InputError, match=r"task\.data\.train: no local file, and the hub data set no/such \(config main, split test\) cannot"
    ):
        Maths({"train": "no/such:main:test"}).prompts("train")


@pytest.mark.parametrize(
    ("source", "config", "own"),
    [
        ("owner/name", None, None),
        ("owner/name:cfg", "cfg", None),
        ("owner/name:cfg:part", "cfg", "part"),
        ("owner/name::part", None, "part"),
        ("owner/name:cfg:part[:100]+other[50:]", "cfg", "part[:100]+other[50:]"),
    ],
)
def test_what_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch, source: str, config: str | None, own: str | None) -> None:
    """A stand-in for the download. Each split is its own, where the source names none."""
    from datasets import Dataset

    asked: list[tuple[str, str | None, str]] = []
    usual: dict[Split, str] = {"report": "test", "tune": "validation", "train": "train"}

    def download(name: str, config: str | None, split: str) -> Dataset:
        asked.append((name, config, split))
        return Dataset.from_list(questions(len(asked) * 10, len(asked) * 10 + 10))

    monkeypatch.setattr("datasets.load_dataset", download)
    found = ids(Maths(dict.fromkeys(SPLITS, source)))
    assert {split: len(found[split]) for split in SPLITS} == dict.fromkeys(SPLITS, 10)
    assert asked == [("owner/name", config, own or usual[split]) for split in usual]


def test_a_missing_gold_column_is_named(forty: str) -> None:
    with pytest.raises(InputError, match=r"task\.gold: \S+ has no column 'solution'"):
        Maths({"train": forty}, gold="solution").prompts("train")


@pytest.mark.parametrize(("pattern", "message"), [("#### (", "not a regular expression"), ("#### .*", "has no group")])
def test_a_bad_answer_pattern_is_refused_at_once(pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"task\.answer_pattern: .*{message}"):
        Maths({"train": "unread.jsonl"}, answer_pattern=pattern)


def test_an_answer_that_the_pattern_does_not_find_is_named(forty: str) -> None:
    with pytest.raises(InputError, match=r"task\.answer_pattern: finds no answer in row 1 of"):
        Maths({"train": forty}, answer_pattern="Answer: (.*)").prompts("train")


def test_training_data_must_be_given() -> None:
    with pytest.raises(InputError, match=r"task\.data\.train"):
        Maths({"train": None, "report": "report.jsonl"})
