"""Evaluate one model on one task: sampled, greedy and, for multiple choice, by the likelihood of the options."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raydistill.cluster import connect
from raydistill.config.evaluate import Evaluate
from raydistill.config.task import is_graded
from raydistill.crew import scorer_actor
from raydistill.diagnose.sampled import Sampled
from raydistill.evaluate.groups import places_by
from raydistill.evaluate.intervals import mean_estimate, prompt_means
from raydistill.evaluate.no_signal import no_signal
from raydistill.evaluate.options import option_accuracy, score_options
from raydistill.evaluation_plan import Subject, parts
from raydistill.files import write_whole
from raydistill.plan import check_room
from raydistill.progress import Console
from raydistill.report.scores import mean_and_interval
from raydistill.reward.grader import start_checker
from raydistill.rollout.completion import Sampling
from raydistill.runfolder import RunFolder
from raydistill.runlog import explained, resume_command
from raydistill.sampling import checked, engines
from raydistill.scoring.actor import answers
from raydistill.scoring.score import SequenceScore
from raydistill.tasks.letters import place_of
from raydistill.tasks.prompt import Prompt
from raydistill.timing import KeptPhases
from raydistill.track.secrets import public_yaml

Json = dict[str, Any]


@dataclass(frozen=True)
class EvaluationFolder(RunFolder):
    """The folder of one evaluation."""

    @property
    def report(self) -> Path:
        return self.root / "evaluation.json"

    @property
    def seconds(self) -> Path:
        """What earlier processes took."""
        return self.root / "seconds.json"

    @property
    def options(self) -> Path:
        """How likely the model found each option."""
        return self.root / "options.json"

    def completions(self, kind: str) -> Path:
        """What the model wrote, `sampled` or `greedy`."""
        return self.root / "completions" / f"{kind}.json"


def run_evaluation(job: Evaluate, subject: Subject, folder: EvaluationFolder, resume: bool) -> None:
    """The whole job, from its folder to its table. Raises InputError or RunError; what is done by then stays and can be resumed."""
    console = Console()
    if not folder.is_complete(job, resume):
        for warning in subject.warnings:
            console.say(f"warning: {warning}")
        connect()  # the model comes from its folder, not by the object store
        check_room(parts(job, subject))
        write_whole(folder.config, public_yaml(job))
        with explained(folder, resume_command()):
            found = Measurement(job, subject, folder, console).run()
            write_whole(folder.report, json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    _say(json.loads(folder.report.read_text()))
    console.say(f"{folder.root}: all figures are in {folder.report}")


class Measurement:
    """One evaluation. What was sampled lies in the folder: a second call does not sample again."""

    def __init__(self, job: Evaluate, subject: Subject, folder: EvaluationFolder, console: Console) -> None:
        self.job, self.subject, self.folder, self.console = job, subject, folder, console
        self.phases = KeptPhases(folder.seconds, ("sample", "options"))

    def run(self) -> Json:
        """The content of evaluation.json."""
        job, subject = self.job, self.subject
        with self.phases.kept():
            wrote = self._completions()
            rows, failures = [row for one in wrote.values() for row in one.right_BG], sum(one.verifier_failures for one in wrote.values())
            if warning := no_signal("the model", rows, failures):
                self.console.say(f"warning: {warning}")
            options = self._options() if job.evaluation.options else None
        found: Json = {
            "run": job.name,
            "task": job.task.kind,
            "split": job.evaluation.split,
            "prompts": len(subject.prompts),
            "seed": job.seed,
            "model": job.model.model,
        }
        graded = {"graded": True} if is_graded(job.task) else {}
        return found | graded | figures(wrote) | {"options": options, "seconds": dict(self.phases.seconds)}

    def _completions(self) -> dict[str, Sampled]:
        """By kind."""
        job, subject, wanted = self.job, self.subject, self._wanted()
        with engines(job.rollout, job.task, job.dtype, subject.role.config.model) as generate:
            for kind, sampling in wanted.items():
                if self.folder.completions(kind).exists():
                    continue
                with (
                    self.phases("sample"),
                    self.console.busy(f"sampling, {kind}"),
                    start_checker(subject.task, job.task, job.verifier) as checker,
                ):
                    found = checked(generate, checker, subject.prompts, subject.reader, sampling)
                write_whole(self.folder.completions(kind), found.to_json())
        return {kind: Sampled.read(self.folder.completions(kind), subject.prompts) for kind in wanted}

    def _wanted(self) -> dict[str, Sampling]:
        job = self.job
        both = {
            "sampled": Sampling(job.evaluation.samples, job.max_new_tokens, seed=job.seed),
            "greedy": Sampling(int(job.evaluation.greedy), job.max_new_tokens, greedy=True),
        }
        return {kind: sampling for kind, sampling in both.items() if sampling.samples}

    def _options(self) -> Json:
        if not self.folder.options.exists():
            with self.phases("options"), self.console.busy("scoring options"):
                scores = self._option_scores()
            write_whole(self.folder.options, json.dumps([[asdict(score) for score in row] for row in scores]))
        scores = [[SequenceScore(**score) for score in row] for row in json.loads(self.folder.options.read_text())]
        return option_figures(scores, self.subject.prompts)

    def _option_scores(self) -> list[list[SequenceScore]]:
        """Of each option of each prompt."""
        import ray

        job, config = self.job, self.job.evaluation.options
        assert config is not None  # noqa: S101
        actor = scorer_actor(self.subject.role.config, job.scorer, job.dtype)

        def score(prompts: Sequence[str], texts: Sequence[str]) -> Sequence[SequenceScore]:
            (scores,) = answers([actor.score.remote(prompts, texts)])
            return scores

        try:
            return score_options(self.subject.prompts, score, config.continuations, config.lead)
        finally:
            ray.kill(actor)


def figures(wrote: Mapping[str, Sampled]) -> Json:
    """Scores, `n` in completions and intervals over prompts, mean lengths in tokens, shares cut off, and checks that failed, by kind."""
    found: Json = {"score": {kind: _score(sampled.right_BG) for kind, sampled in wrote.items()}}
    by_option = {
        kind: _by(sampled, [prompt.answer for prompt in sampled.prompts]) for kind, sampled in wrote.items() if sampled.prompts[0].options
    }
    by_group = {kind: _by(sampled, groups) for kind, sampled in wrote.items() if any(groups := _groups(sampled.prompts))}
    found |= ({"by_option": by_option} if by_option else {}) | ({"by_group": by_group} if by_group else {})
    for name in ("length", "truncated"):
        found[name] = {kind: _mean(sampled, name) for kind, sampled in wrote.items()}
    found["verifier_failures"] = {kind: sampled.verifier_failures for kind, sampled in wrote.items()}
    return found


def option_figures(scores_BO: Sequence[Sequence[SequenceScore]], prompts: Sequence[Prompt]) -> Json:
    """How often the likeliest option is the right one; by group, too, where the prompts have groups."""

    def at(places: Sequence[int]) -> Json:
        return asdict(option_accuracy([scores_BO[place] for place in places], [place_of(prompts[place].answer) for place in places]))

    groups = _groups(prompts)
    by_group = {"by_group": {name: at(places) for name, places in places_by(groups).items()}} if any(groups) else {}
    return at(range(len(prompts))) | by_group


def _groups(prompts: Sequence[Prompt]) -> list[str]:
    return [prompt.group for prompt in prompts]


def _score(rows: Sequence[Sequence[float]]) -> Json:
    """The share of right completions, or their mean reward."""
    return mean_and_interval(mean_estimate(prompt_means(rows))) | {"n": sum(map(len, rows))}


def _by(sampled: Sampled, names: Sequence[str]) -> Json:
    """The score of the prompts of each name; `names` are the prompts' own."""
    return {name: _score([sampled.right_BG[place] for place in places]) for name, places in places_by(names).items()}


def _mean(sampled: Sampled, what: str) -> float:
    values = [len(one.token_ids) if what == "length" else one.truncated for row in sampled.completions_BG for one in row]
    return sum(values) / len(values)


def _say(found: Json) -> None:
    """Figures on the terminal."""
    from rich.console import Console as RichConsole
    from rich.table import Table

    rows = {kind: score | {key: found[key][kind] for key in ("length", "truncated")} for kind, score in found["score"].items()}
    rows |= {f"{kind}, right answer {letter}": one for kind, by in found.get("by_option", {}).items() for letter, one in by.items()}
    rows |= {f"{kind}, {group or 'no group'}": one for kind, by in found.get("by_group", {}).items() for group, one in by.items()}
    if options := found["options"]:
        names = ("acc", "acc_norm")
        rows |= {f"likeliest option, {name}": options[name] for name in names}
        by = options.get("by_group", {})
        rows |= {f"likeliest option, {name}, {group or 'no group'}": by[group][name] for name in names for group in by}
    counted = "mean reward" if found.get("graded") else "share right"
    title = f"{found['model']}, {found['prompts']} prompts of {found['split']}"
    table = Table("", counted, "95 %", "n", "tokens", "truncated", title=title)
    for name, row in rows.items():
        bounds = "-" if row["ci95"] is None else f"[{row['ci95'][0]:.3f}, {row['ci95'][1]:.3f}]"
        more = (f"{row['length']:.1f}", f"{row['truncated']:.3f}") if "length" in row else ("", "")
        table.add_row(name, f"{row['mean']:.3f}", bounds, str(row["n"]), *more)
    console = RichConsole()
    console.print(table, markup=False)
    if failures := sum(found["verifier_failures"].values()):
        console.print(f"{failures} checks timed out or crashed, and count as wrong", highlight=False)
