"""Synthetic facts: outcomes drawn at random around set rates. The numbers mean nothing beyond these tests."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from raydistill.config.run import Run
from raydistill.evaluate.evaluation import Evaluation
from raydistill.report.facts import Facts, StudentFacts, TargetFacts, TeacherFacts, TraceFacts

CLEAR, CIPHER = {"clear": 0.8, "cipher": 0.1, "ramble": 0.1}, {"clear": 0.05, "cipher": 0.8, "ramble": 0.15}
MIXED = {"clear": 0.38, "cipher": 0.41, "ramble": 0.21}


def run_config(eta: float = 1.0, seeds: tuple[int, ...] = (1, 2, 3), **changes: Any) -> Run:
    students = {"model": {"model": "demo:student"}, "methods": [{"method": "seqkd"}, {"method": "gkd"}]}
    data = {"name": f"synthetic-{eta:g}", "seeds": seeds, "teacher": {"model": "demo:teacher"}, "proxy": {"model": "demo:proxy"}}
    return Run.model_validate(data | {"knob": {"eta": eta}, "students": students} | changes)


def outcomes(rate: float, greedy: float, seed: int, styles: dict[str, float] = MIXED, prompts: int = 300, samples: int = 2) -> Evaluation:
    """Independent completions that are right with these chances."""
    rng = random.Random(seed)
    return Evaluation(
        prompt_ids=tuple(f"p{n}" for n in range(prompts)),
        sampled_BG=tuple(tuple(rng.random() < rate for _ in range(samples)) for _ in range(prompts)),
        greedy_B=tuple(rng.random() < greedy for _ in range(prompts)),
        styles=styles,
        style_accuracy=dict.fromkeys(styles, rate),
        length=16.0 + rate,
        truncated=0.01,
        verifier_failures=0,
    )


def exact(right: int, prompts: int = 100, greedy_right: int | None = None) -> Evaluation:
    """The first `right` prompts are solved, in both samples; `greedy_right` of them greedily."""
    solved = [n < right for n in range(prompts)]
    return Evaluation(
        prompt_ids=tuple(map(str, range(prompts))),
        sampled_BG=tuple((one, one) for one in solved),
        greedy_B=tuple(n < (right if greedy_right is None else greedy_right) for n in range(prompts)),
        styles={"all": 1.0},
        style_accuracy={"all": right / prompts},
        length=10.0,
        truncated=0.0,
        verifier_failures=0,
    )


def teacher_facts(original: Evaluation, calibrated: tuple[Evaluation, ...], accuracy: float | None = None, kl: float = 0.4) -> TeacherFacts:
    """Traces are right as often as the calibrated teacher unless `accuracy` says otherwise."""
    rate = sum(map(sum, calibrated[0].sampled_BG)) / sum(map(len, calibrated[0].sampled_BG))
    return TeacherFacts(
        original=original,
        calibrated=calibrated,
        kl_per_sequence=tuple(kl * (1 + 0.05 * n) for n in range(len(calibrated))),
        original_gap=-0.12,
        calibrated_gap=tuple(-0.08 - 0.001 * n for n in range(len(calibrated))),
        traces=tuple(TraceFacts(rate if accuracy is None else accuracy, 17.0, 0.0, one.styles) for one in calibrated),
        examples=(("7+5-9=", "Di+h=a;a-f=c;#3", "7+5=2;2-9=3;#3"), ("1+1-2=", "~GAEH 1+1=2;2-2=0;#0", "1+1=2;2-2=0;#0")),
    )


def some_facts(eta: float, seeds: tuple[int, ...] = (1, 2, 3)) -> Facts:
    """Something like a demo run: students better for eta > 0, worse for eta < 0, the teacher nearly kept."""
    styles = MIXED if eta == 0 else CLEAR if eta > 0 else CIPHER
    boost = 0.36 * (1 - 2.718 ** -abs(eta)) / 0.632 * (1 if eta > 0 else -1)
    student = [
        StudentFacts(
            method,
            2048,
            250,
            tuple(outcomes(0.50 + shift + 0.02 * k, 0.72 + shift, 100 + k) for k in seeds),
            tuple(outcomes(0.50 + shift + boost + 0.02 * k, min(0.98, 0.72 + boost), 200 + k, styles) for k in seeds),
        )
        for method, shift in (("seqkd", 0.0), ("gkd", 0.06))
    ]
    return Facts(
        run=run_config(eta, seeds),
        teacher=teacher_facts(
            outcomes(0.996, 1.0, 1, samples=4), tuple(outcomes(0.995, 1.0, 10 + k, styles, samples=4) for k in seeds), kl=0.4 * abs(eta)
        ),
        base=outcomes(0.3, 0.42, 7),
        sft_gold=tuple(outcomes(0.55, 0.8, 300 + k) for k in seeds),
        students=tuple(student),
        seconds={"total": 512.3, "calibrate": 61.0, "distil": 380.2, "evaluate": 71.1},
    )


def some_rows(seeds: tuple[int, ...] = (1, 2, 3), steps: int = 40) -> dict[int, list[dict[str, Any]]]:
    """Lines of metrics.jsonl by seed."""
    return {seed: [_row(step, random.Random(1000 * seed + step)) for step in range(steps)] for seed in seeds}


def with_shadows(rows: dict[int, list[dict[str, Any]]], count: int = 2) -> dict[int, list[dict[str, Any]]]:
    """The same with shadow students, measured every tenth step; the last of them was late at step 20."""
    return {seed: [row | {"shadows": _shadows(seed, row["step"], count)} for row in lines] for seed, lines in rows.items()}


def with_target(facts: Facts, ended: Sequence[str] = ("met", "eta was at its bound", "met")) -> Facts:
    """The same run as a closed loop that asked for 0.5."""
    run = run_config(0.0, facts.run.seeds, knob={"target": {"student_ratio": 0.5}})
    target = tuple(TargetFacts(0.5, 0.5 + 0.01 * n, -0.3, 25, why) for n, why in enumerate(ended))
    return replace(facts, run=run, target=target)


def with_looks(rows: dict[int, list[dict[str, Any]]]) -> dict[int, list[dict[str, Any]]]:
    """The same with a target, measured every fifth step."""
    return {seed: [row | {"eta": -0.5 + 0.01 * row["step"], "target": _look(row["step"])} for row in lines] for seed, lines in rows.items()}


def _look(step: int) -> dict[str, float] | None:
    ratio = 1 - 0.01 * step
    return None if (step + 1) % 5 else {"ratio": ratio, "shadow": 0.4 * ratio, "twin": 0.4}


def _shadows(seed: int, step: int, count: int) -> dict[str, Any]:
    if step % 10:
        return {"late": 0, "accuracy": None, "twin": None}
    own: list[float | None] = [0.3 + 0.01 * step + 0.01 * seed + 0.1 * place for place in range(count)]
    twin: list[float | None] = [0.3 + 0.002 * step + 0.01 * seed + 0.1 * place for place in range(count)]
    if step == 20:
        own[-1] = twin[-1] = None
    return {"late": int(step == 20), "accuracy": own, "twin": twin}


def _row(step: int, rng: random.Random) -> dict[str, Any]:
    seconds = {"rollout": 0.29, "verify": 0.02, "score": 0.05, "learn": 0.14 if step else 9.0, "sync": 0.04}
    return {
        "step": step,
        "weights_version": step,
        "task_reward": 0.985 + 0.015 * rng.random(),
        "cal_reward": None if step == 5 else -0.12 + 0.001 * step + 0.005 * rng.random(),
        "kl_anchor": 0.01 * step * (1 + 0.2 * rng.random()),
        "mismatch_kl": 1e-6 * rng.random(),
        "length": 17 + rng.random(),
        "truncated": 0.0,
        "verifier_failures": 0,
        "loss": rng.random(),
        "grad_norm": rng.random(),
        "seconds": {name: value * (0.8 + 0.4 * rng.random()) for name, value in seconds.items()},
    }
