"""The report card: what was measured in a run, compared. A pure function from facts to the content of report.json."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from raydistill.config.run import Run
from raydistill.config.task import is_graded
from raydistill.evaluate.intervals import Ratio, ratio_of_means
from raydistill.report.diagnoses import diagnosis
from raydistill.report.facts import Facts, StudentFacts, TeacherFacts, TraceFacts
from raydistill.report.scores import Json, difference, finite, mean, mean_shares, prompt_difference, score, seed_means

KEPT_MARGIN = 0.01
"""A teacher is kept whose score fell by less than this, by the lower bound of the paired interval."""
TRACE_MARGIN = 0.02
"""Traces whose accuracy (mean reward) is below a teacher's report score by more than this speak against a claim of protection."""


def report_card(facts: Facts) -> Json:
    """The content of report.json, finite numbers and nulls only.

    With two or more seeds a score is the mean over seeds and its interval clusters by seed; with one it clusters by prompt, and
    `ratio_ci95` is null, as it is where a student's score is 0. `teacher.original` is a single evaluation, so its interval
    clusters by prompt; `teacher.difference_ci95` is paired by prompt whatever the number of seeds. A baseline that was not
    measured is null.

    Where the task is graded, `graded` is true, and scores and `traces.accuracy` are mean rewards.

    Beyond the contract: `seeds`, `prompts`; `target` and `diagnosis` where the run has one; of the teacher `difference` (mean and
    interval, greedy too), `style`, `length`, `truncated`, `verifier_failures` before and after, and `per_seed`; of each student
    `differences` from control, base and sft_gold, `style`, and greedy scores in `per_seed`.

    Raises ValueError where evaluations that have to be paired are of different seeds or prompts.
    """
    students = [_student(facts, student) for student in facts.students]
    teacher = _teacher(facts.run, facts.teacher)
    return {
        "run": facts.run.name,
        "task": facts.run.task.kind,
        "split": facts.run.evaluation.split,
        "seeds": list(facts.run.seeds),
        "prompts": len(facts.teacher.original.prompt_ids),
        "knob": {"eta": facts.run.knob.eta},
        "teacher": teacher,
        "baselines": {
            "base": None if facts.base is None else score([facts.base]),
            "sft_gold": score(facts.sft_gold) if facts.sft_gold else None,
        },
        "students": students,
        "claims": claims(teacher, students),
        "seconds": dict(facts.seconds),
        **({"target": _target(facts)} if facts.target else {}),
        **({"diagnosis": diagnosis(facts.diagnoses)} if facts.diagnoses else {}),
        **({"graded": True} if is_graded(facts.run.task) else {}),
    }


def claims(teacher: Json, students: Sequence[Json]) -> dict[str, bool]:
    """What the evidence carries, by the sampled scores; a comparison that was not made, or has no interval, carries nothing.

    Distillable: students of every method beat the control and sft_gold by the paired interval. Collapse: those of every method
    are below the control and the base, and the traces they learnt from are no worse than they should be (`traces_hold`).
    """
    return {
        "distillable": _all_beyond(students, ("control", "sft_gold"), sign=1),
        "collapse": _all_beyond(students, ("control", "base"), sign=-1) and traces_hold(teacher),
        "teacher_kept": teacher["difference_ci95"] is not None and teacher["difference_ci95"][0] > -KEPT_MARGIN,
    }


def traces_hold(teacher: Json) -> bool:
    """Whether the traces' accuracy is within TRACE_MARGIN of the report score of both teachers.

    Any student collapses on wrong traces, and no teacher is protected by writing them. Below the calibrated teacher, which
    wrote them, they do not stand for what it says; below the original, calibration has spoilt the answers themselves.
    """
    best = max(teacher[version]["sampled"]["mean"] for version in ("original", "calibrated"))
    return bool(teacher["traces"]["accuracy"] >= best - TRACE_MARGIN - 1e-9)


def _all_beyond(students: Sequence[Json], opponents: tuple[str, str], sign: int) -> bool:
    return bool(students) and all(beyond(student["differences"][name], sign) for student in students for name in opponents)


def beyond(differences: Json | None, sign: int, kind: str = "sampled") -> bool:
    """Whether the whole interval of a difference is above 0 (`sign` 1) or below (-1)."""
    if differences is None or differences[kind]["ci95"] is None:
        return False
    return min(sign * bound for bound in differences[kind]["ci95"]) > 0


def _teacher(run: Run, teacher: TeacherFacts) -> Json:
    gap = finite(mean(teacher.calibrated_gap))
    paired = prompt_difference(teacher.calibrated, [teacher.original])
    return {
        "original": score([teacher.original]),
        "calibrated": score(teacher.calibrated),
        "difference_ci95": paired["sampled"]["ci95"],
        "difference": paired,
        "kl_per_sequence": finite(mean(teacher.kl_per_sequence)),
        "cal_reward": {"original": finite(teacher.original_gap), "calibrated": gap},
        "traces": _traces(teacher.traces),
        **_before_and_after(teacher),
        "per_seed": list(_teacher_seeds(run, teacher)),
    }


def _before_and_after(teacher: TeacherFacts) -> Json:
    before, after = teacher.original, teacher.calibrated
    return {
        "style": {"original": mean_shares([before.styles]), "calibrated": mean_shares([one.styles for one in after])},
        "length": {"original": before.length, "calibrated": mean([one.length for one in after])},
        "truncated": {"original": before.truncated, "calibrated": mean([one.truncated for one in after])},
        "verifier_failures": {
            "original": before.verifier_failures,
            "calibrated": sum(one.verifier_failures for one in after),
        },
    }


def _teacher_seeds(run: Run, teacher: TeacherFacts) -> Iterator[Json]:
    sampled, greedy = seed_means(teacher.calibrated), seed_means(teacher.calibrated, "greedy")
    columns = (run.seeds, sampled, greedy, map(finite, teacher.kl_per_sequence), map(finite, teacher.calibrated_gap))
    for row in zip(*columns, strict=True):
        yield dict(zip(("seed", "sampled", "greedy", "kl_per_sequence", "cal_reward"), row, strict=True))


def _traces(traces: Sequence[TraceFacts]) -> Json:
    return {
        "accuracy": mean([one.accuracy for one in traces]),
        "length": mean([one.length for one in traces]),
        "truncated": mean([one.truncated for one in traces]),
        "style": mean_shares([one.style for one in traces]),
        "dropped": mean([one.dropped for one in traces]),
    }


def _student(facts: Facts, student: StudentFacts) -> Json:
    sampled, greedy = _ratio(student, "sampled"), _ratio(student, "greedy")
    opponents = {"control": student.control, "base": facts.base and [facts.base], "sft_gold": facts.sft_gold}
    return {
        "method": student.method,
        "seeds": list(facts.run.seeds),
        "budget": {"samples": student.samples, "steps": student.steps},
        "control": score(student.control),
        "calibrated": score(student.calibrated),
        "ratio": sampled.ratio,
        "ratio_ci95": None if sampled.ci95 is None else list(sampled.ci95),
        "ratio_greedy": greedy.ratio,
        "ratio_greedy_ci95": None if greedy.ci95 is None else list(greedy.ci95),
        "differences": {name: difference(student.calibrated, other) if other else None for name, other in opponents.items()},
        "style": {
            "control": mean_shares([one.styles for one in student.control]),
            "calibrated": mean_shares([one.styles for one in student.calibrated]),
        },
        "per_seed": list(_student_seeds(facts, student)),
    }


def _target(facts: Facts) -> Json:
    """How near the closed loop came, by its own students: means over seeds, and met where it was by every seed."""
    rows = [
        {"seed": seed, "reached": one.reached, "eta": one.eta, "steps": one.steps, "met": one.met, "ended": one.ended}
        for seed, one in zip(facts.run.seeds, facts.target, strict=True)
    ]
    means = {name: mean([getattr(one, name) for one in facts.target]) for name in ("reached", "eta", "steps")}
    return {"asked": facts.target[0].asked, **means, "met": all(one.met for one in facts.target), "per_seed": rows}


def _ratio(student: StudentFacts, kind: str) -> Ratio:
    return ratio_of_means(seed_means(student.calibrated, kind), seed_means(student.control, kind))


def _student_seeds(facts: Facts, student: StudentFacts) -> Iterator[Json]:
    """A row a seed. The base student is the same for all of them, so that its score repeats."""
    groups = {
        "base": (facts.base,) * len(facts.run.seeds),
        "sft_gold": facts.sft_gold or (None,) * len(facts.run.seeds),
        "control": student.control,
        "calibrated": student.calibrated,
    }
    for seed, *evaluations in zip(facts.run.seeds, *groups.values(), strict=True):
        row: Json = {"seed": seed}
        for name, evaluation in zip(groups, evaluations, strict=True):
            row[name] = None if evaluation is None else seed_means([evaluation])[0]
            row[f"{name}_greedy"] = None if evaluation is None else seed_means([evaluation], "greedy")[0]
        yield row
