"""Recovery from injected wrong steps, against continuations whose outcome is known, and corrections counted by hand."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydistill.diagnose.self_correction import (
    FEWEST,
    Continued,
    Cut,
    continuations,
    corrections,
    cut_traces,
    fitting,
    recovery,
    self_correction_collapse,
)
from raydistill.models.recipes import CORRECTIONS
from raydistill.models.trio import character_tokenizer
from raydistill.rollout.completion import Completion, StopReason
from raydistill.students.data import Reader
from raydistill.tasks.arithmetic import Arithmetic, _steps, trace
from raydistill.tasks.outcome import Checked, Outcome
from raydistill.tasks.prompt import Prompt
from raydistill.tasks.verifier import Verifier
from tests.diagnose.samples import sampled

TASK = Arithmetic(corrections=True)
PROMPTS = TASK.prompts("tune")[:40]
TOKENIZER = character_tokenizer(CORRECTIONS.characters)
READER = Reader(TOKENIZER, "plain", "{prompt}", TOKENIZER.eos_token_id)


def teacher(style: str = "clear", right: bool = True):
    """One trace of each prompt."""
    texts = [trace(one.text, style, random.Random(one.id)) for one in PROMPTS]
    return replace(sampled([[(text, right)] for text in texts]), prompts=tuple(PROMPTS))


def honest(prompt: str, begun: str) -> str:
    """What a model writes that takes back a wrong step."""
    worked, answer = _steps(prompt)
    written = [f"{left}{result}" for left, result in worked]
    at = begun.count(";")
    back = "" if begun.endswith(written[at]) else "x" + written[at]
    return back + "".join(";" + step for step in written[at + 1 :]) + f";#{answer}"


def stubborn(prompt: str, begun: str) -> str:
    """What a model writes that builds on what stands there."""
    if begun.count(";"):
        return f";#{begun[-1]}"
    second = f"{begun[-1]}{prompt[3:5]}"
    result = eval(second) % 10
    return f";{second}={result};#{result}"


def engine(write):
    """Completions of a model that writes so, from token ids alone."""

    def generate(prompts, sampling):
        found = []
        for prompt in prompts:
            asked, mark, begun = TOKENIZER.decode(prompt.token_ids[1:]).partition("=")
            text = write(asked + mark, begun)
            ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
            found.append(
                [Completion(prompt.id, 0, prompt.token_ids, (*ids, TOKENIZER.eos_token_id), (0.0,), text, StopReason.END, False, 0)]
            )
        return found

    return generate


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(TASK, 1, 5.0) as started:
        yield started


def test_who_takes_the_step_back_recovers_and_who_builds_on_it_does_not(verifier: Verifier) -> None:
    cuts = [cut for cut in cut_traces(teacher(), "arithmetic", 1) if cut.source == "own"]
    assert len(cuts) == len(PROMPTS)
    for write, recovers in ((honest, True), (stubborn, False)):
        found = continuations(engine(write), READER, PROMPTS, cuts, verifier, 32, 1)
        assert [one.kept for one in found] == [True] * len(cuts)
        assert [one.recovered for one in found] == [recovers] * len(cuts)
        assert [one.cut for one in found] == cuts


class Scripted:
    """Gives outcomes in turn, and keeps what it was asked."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        self._outcomes = iter(outcomes)
        self.asked: list[tuple[str, str]] = []

    def verify(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Checked]:
        self.asked += [(prompt.id, text) for prompt, text in zip(prompts, completions, strict=True)]
        return [next(self._outcomes) for _ in completions]

    def close(self) -> None:
        pass


def test_the_whole_is_checked_and_failed_checks_are_counted() -> None:
    cuts = cut_traces(teacher(), "arithmetic", 1)[5:8]
    checker = Scripted([Outcome.TIMEOUT, Outcome.CRASHED, Outcome.RIGHT, Outcome.TIMEOUT, Outcome.WRONG, Outcome.RIGHT])
    found = continuations(engine(lambda prompt, begun: f"[{begun}]"), READER, PROMPTS, cuts, checker, 32, 1)
    texts = [(cut.place, text) for cut in cuts for text in (cut.wrong, cut.right)]
    assert checker.asked == [(PROMPTS[place].id, f"{text}[{text}]") for place, text in texts]
    assert [(one.recovered, one.kept, one.failed) for one in found] == [(False, False, 2), (True, False, 1), (False, True, 0)]


@given(st.sampled_from(["clear", "ramble", "cipher"]), st.integers(0, 1000))
def test_a_cut_is_a_right_beginning_and_the_same_with_its_last_character_wrong(style: str, seed: int) -> None:
    for cut in cut_traces(teacher(style), "arithmetic", seed):
        whole = (
            trace(PROMPTS[cut.place].text, style, random.Random(PROMPTS[cut.place].id)) if cut.source == "own" else PROMPTS[cut.place].gold
        )
        assert whole.startswith(cut.right)
        assert whole[len(cut.right)] == ";"
        assert cut.right[:-1] == cut.wrong[:-1]
        assert cut.right[-1] != cut.wrong[-1]
        assert cut.wrong[-1].isdecimal() == cut.right[-1].isdecimal()


def test_wrong_corrected_truncated_and_stepless_traces_are_not_cut() -> None:
    gold = sum("x" not in one.gold for one in PROMPTS)
    assert 0 < gold < len(PROMPTS)
    for left_out in (teacher(right=False), teacher("corrected")):
        cuts = cut_traces(left_out, "arithmetic", 1)
        assert (len(cuts), {cut.source for cut in cuts}) == (gold, {"gold"})
    assert cut_traces(sampled([[("The answer is 4.", True)]]), "maths", 1) == []


def test_a_number_is_cut_behind_all_of_it() -> None:
    (cut,) = cut_traces(sampled([[("He pays 3 * 400 = $1,200.50 in all. #### 1200.5", True)]]), "maths", 1)
    assert cut.right == "He pays 3 * 400 = $1,200.50"
    assert re.fullmatch(r"He pays 3 \* 400 = \$\d,200.50", cut.wrong)


def test_what_leaves_too_little_room_is_left_out() -> None:
    cuts = cut_traces(teacher(), "arithmetic", 1)
    longest = max(len(cut.right) for cut in cuts)
    asked = len(READER.prompt(PROMPTS[0].text))
    assert fitting(cuts, PROMPTS, READER, 32, asked + longest + 32) == cuts
    kept = fitting(cuts, PROMPTS, READER, 32, asked + longest + 31)
    assert kept == [cut for cut in cuts if len(cut.right) < longest]


def test_no_cut_asks_no_engine(verifier: Verifier) -> None:
    def generate(prompts, sampling):
        raise AssertionError("asked")

    assert continuations(generate, READER, PROMPTS, [], verifier, 32, 1) == []


def back(outcomes: list[tuple[int, str, bool, bool]]) -> list[Continued]:
    return [Continued(Cut(place, source, "1+1=2", "1+1=3"), recovered, kept) for place, source, recovered, kept in outcomes]


def test_shares_are_counted_by_prompt_and_source() -> None:
    rows = [(place, source, place % 2 == 0, place != 3) for place in range(20) for source in ("own", "gold")]
    found = recovery(back(rows))
    assert (found["recovery"]["value"], found["recovery"]["n"]) == (0.5, 20)
    assert found["recovery"]["reference"] == found["uncorrupted"]["value"] == pytest.approx(19 / 20)
    assert {name: one["n"] for name, one in found["by_source"].items()} == {"gold": 20, "own": 20}
    mixed = recovery(back([(place, source, source == "own", source == "gold") for place in range(20) for source in ("own", "gold")]))
    assert [(mixed["by_source"][one]["value"], mixed["by_source"][one]["reference"]) for one in ("own", "gold")] == [(1, 0), (0, 1)]
    # two cuts of a prompt that always agree tell no more than one
    assert found["recovery"]["ci95"] == pytest.approx(recovery(back(rows[::2]))["recovery"]["ci95"])


def test_too_few_prompts_are_not_measured_and_counted() -> None:
    few = recovery(back([(place, "own", True, True) for place in range(FEWEST - 1)]))
    assert few["recovery"]["n"] == FEWEST - 1
    assert "a step to corrupt: 9, and 10 are needed" in few["recovery"]["not measured"]
    assert recovery([])["recovery"]["n"] == 0


def test_corrections_are_counted_and_weighed() -> None:
    texts = [("1+1=3x1+1=2;#2", True), ("1+1=2;#2", True), ("1+1=3x1+1=4;#4", False), ("#1", False)]
    found = corrections(sampled([texts] * 6), "arithmetic")
    assert found["rate"]["value"] == 0.5
    assert found["right_with"]["value"] == found["right_without"]["value"] == 0.5
    assert (found["right_with"]["completions"], found["right_with"]["n"]) == (12, 6)
    assert (found["helped"]["value"], found["harmed"]["value"]) == (0.5, 0)
    assert (found["helped"]["corrections"], found["helped"]["n"]) == (12, 6)
    harm = corrections(sampled([[("1+1=2x1+1=3;#3", False)]] * 12), "arithmetic")
    assert (harm["helped"]["value"], harm["harmed"]["value"]) == (0, 1)
    words = corrections(sampled([[("1 + 1 = 3. Wait, it is 2.", True)]] * 12), "maths")
    assert words["rate"]["value"] == 1
    assert words["helped"] == {"not measured": "whether a step is right is known in the arithmetic task alone"}
    none = corrections(sampled([[("1+1=2;#2", True)]] * 12), "arithmetic")
    assert none["rate"]["value"] == 0
    assert none["helped"] == {"not measured": "0 corrections of the kind, and 10 are needed", "n": 0}
    assert none["right_with"] == {"not measured": "0 completions of the kind, and 10 are needed", "n": 0}


def test_the_symptom_is_the_students_recovery_with_the_teachers_beside_it() -> None:
    texts = sampled([[("1+1=2;#2", True)]] * 12)
    rows = [[(place, "own", recovers, True) for place in range(12)] for recovers in (False, True)]
    found = self_correction_collapse(texts, texts, back(rows[0]), back(rows[1]), "arithmetic")
    assert (found["value"], found["reference"]) == (0, 1)
    assert found["teacher"]["recovery"]["value"] == 1
    rate = found["student"]["corrections"]["rate"]
    assert rate["reference"] == found["teacher"]["corrections"]["rate"]["value"] == 0  # the teacher's, where it has none of its own
    missing = self_correction_collapse(texts, texts, [], [], "arithmetic")
    assert "not measured" in missing
    assert missing["student"]["corrections"]["rate"]["n"] == 12
