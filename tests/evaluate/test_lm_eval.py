"""The same model, prompts and items under lm-evaluation-harness and here: to within one item, and every other one explained."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from raydistill.evaluate.options import option_accuracy, score_options
from raydistill.scoring.score import Scorer, ScorerSpec
from raydistill.tasks.letters import LETTERS
from raydistill.tasks.prompt import Prompt
from tests.e2e.conftest import ENVIRONMENT
from tests.evaluate import lm_eval
from tests.real import SMOL, real_model, shared

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(1800)]

QUESTIONS, OPTIONS = 32, 100
FORMAT = "{prompt}\n\nThink step by step. End with a line that has '#### ' and the number."


@pytest.fixture(scope="module", autouse=True)
def _harness() -> None:
    if why := lm_eval.missing():
        pytest.skip(why)


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _read(path: Path, count: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()[:count]]


def test_option_likelihood_on_commonsense_qa(tmp_path: Path) -> None:
    rows = [
        {
            "question": row["question"]["stem"],
            "options": [choice["text"] for choice in row["question"]["choices"]],
            "right": LETTERS.index(row["answerKey"]),
        }
        for row in _read(shared("data/commonsense_qa/sample_200.jsonl"), OPTIONS)
    ]
    theirs = lm_eval.samples("csqa", real_model(SMOL), _write(tmp_path / "csqa.jsonl", rows), tmp_path)
    scorer = Scorer(ScorerSpec(str(real_model(SMOL)), template="plain", prompt_format="Question: {prompt}\nAnswer:", threads=2))
    prompts = [Prompt(str(i), row["question"], LETTERS[row["right"]], "", tuple(row["options"])) for i, row in enumerate(rows)]
    scores = score_options(prompts, scorer.score)

    logprobs = [[float(answer[0]) for answer in one["filtered_resps"]] for one in theirs]
    apart = max(abs(a.logprob - b) for mine, other in zip(scores, logprobs, strict=True) for a, b in zip(mine, other, strict=True))
    own = option_accuracy(scores, [row["right"] for row in rows])
    each = [option_accuracy([mine], [row["right"]]) for mine, row in zip(scores, rows, strict=True)]
    other_items = {
        name: [(i, one[name]) for i, (one, mine) in enumerate(zip(theirs, each, strict=True)) if one[name] != getattr(mine, name).mean]
        for name in ("acc", "acc_norm")
    }
    theirs_by_name = {name: sum(one[name] for one in theirs) for name in ("acc", "acc_norm")}
    print(f"log-probabilities up to {apart:.1e} nats apart; right of {OPTIONS}: theirs {theirs_by_name}, items that differ {other_items}")
    assert apart < 1e-3
    # Two options of one question have the same text: here such a tie counts a half, there the first of them is chosen.
    for name, items in other_items.items():
        assert all(0 < getattr(each[place], name).mean < 1 and len(set(rows[place]["options"])) < 5 for place, _ in items)
        assert getattr(own, name).mean * OPTIONS == pytest.approx(theirs_by_name[name], abs=1)


def test_greedy_answers_on_gsm8k(tmp_path: Path) -> None:
    data = _write(tmp_path / "gsm8k.jsonl", _read(shared("data/gsm8k/test.jsonl"), QUESTIONS))
    train = _write(tmp_path / "train.jsonl", _read(shared("data/gsm8k/train.jsonl"), 40))
    texts, right = _ours(data, train, tmp_path / "run")
    by_filter: dict[str, dict[str, Any]] = {}
    for one in lm_eval.samples("gsm8k", real_model(SMOL), data, tmp_path, "--apply_chat_template"):
        by_filter.setdefault(one["filter"], {})[one["doc"]["question"]] = one
    flexible = by_filter["flexible-extract"]
    same = [question for question, one in flexible.items() if one["resps"][0][0].strip() == texts[question].strip()]
    differing = [q for q, one in flexible.items() if bool(one["exact_match"]) != right[q]]
    count = sum(one["exact_match"] for one in flexible.values())
    strict = sum(one["exact_match"] for one in by_filter["strict-match"].values())
    here = sum(right.values())
    print(f"{len(same)} of {QUESTIONS} completions are the same text; right: {here} here, {count:g} flexible, {strict:g} strict")
    for question in differing:
        one = flexible[question]
        print(
            f"differs: {question[:60]!r}, answer {one['target'][-12:]!r}, they take {one['filtered_resps']}, same text {question in same}"
        )
        print(f"    ours ends {texts[question][-100:]!r}\n    theirs {one['resps'][0][0][-100:]!r}")
    assert set(flexible) == set(texts)
    assert len(same) >= 0.9 * QUESTIONS
    assert abs(here - count) <= 1


def _ours(data: Path, train: Path, out: Path) -> tuple[dict[str, str], dict[str, bool]]:
    """Text and outcome by question, of the command as a user gives it."""
    fields = ["task.kind=maths", f"task.data={{train: {train}, report: {data}}}", "task.answer_pattern='#### (.*)'"]
    fields += [f"model={{model: {real_model(SMOL)}, template: chat, prompt_format: {json.dumps(FORMAT)}}}", "evaluation.samples=0"]
    fields += ["max_new_tokens=256", "rollout={max_model_len: 1024, kv_cache_mib: 512}"]
    command = [sys.executable, "workflows/evaluate.py", *fields, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    kept = json.loads((out / "completions" / "greedy.json").read_text())
    questions = {prompt.id: prompt.text for prompt in _prompts(data, train)}
    pairs = [
        (questions[row[0]["prompt_id"]], row[0]["text"], right[0]) for row, right in zip(kept["completions"], kept["right"], strict=True)
    ]
    return {question: text for question, text, _ in pairs}, {question: outcome for question, _, outcome in pairs}


def _prompts(data: Path, train: Path) -> list[Prompt]:
    from raydistill.tasks.maths import Maths

    return Maths({"train": str(train), "tune": None, "report": str(data)}, answer_pattern="#### (.*)").prompts("report")
