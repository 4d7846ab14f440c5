"""The shadow students as the main loop sees them: they learn while it samples, and it never waits for them longer than agreed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydistill.config.models import ModelConfig
from raydistill.config.run import Run
from raydistill.config.shadows import ShadowsConfig
from raydistill.config.task import next_question
from raydistill.errors import InputError, RunError, last_line
from raydistill.evaluate.measure import check_completions
from raydistill.students.data import Answer, Trace
from raydistill.students.shadow_actor import Assignment, Learnt, start_shadow
from raydistill.tasks.outcome import Checked, Checker
from raydistill.tasks.prompt import Task

if TYPE_CHECKING:
    from raydistill.models.preflight import ModelFacts
    from raydistill.students.shadow import ShadowSpec, TracePair


@dataclass(frozen=True)
class OriginalTraces:
    """What a seed's shadows need of the original teacher."""

    twin: tuple[tuple[Trace | None, ...], ...]
    """For each step a trace at the place of each of the step's completions, same prompt; None where a special token is inside."""
    held_out: tuple[Answer, ...]
    """Right ones, on tune prompts."""

    @classmethod
    def read(cls, path: Path) -> OriginalTraces:
        data = json.loads(path.read_text())
        steps = (tuple(Trace(**trace) if trace else None for trace in step) for step in data["twin"])
        return cls(tuple(steps), tuple(Answer(Trace(**one["trace"]), one["logprob"]) for one in data["held_out"]))


NO_TRACES = OriginalTraces((), ())
"""Where there are no shadows."""


@dataclass
class _Member:
    """One shadow, and what it is at."""

    section: str
    actor: Any
    lesson: Any = None
    """A reference to the answer to its lesson, while that is out."""


class ShadowGroup:
    """The shadows of a run, an actor each, called together."""

    def __init__(
        self, run: Run, config: ShadowsConfig, models: Sequence[tuple[ModelConfig, ModelFacts]], task: Task, verifier: Checker
    ) -> None:
        """Starts the actors without waiting for them; `models` are settled, in the order of the config."""
        self.config, self._verifier = config, verifier
        # The prompts that influence is about are left out: their right answers are what its reward asks for.
        first = config.held_out if config.use == "influence" else 0
        self._prompts = tuple(task.prompts("tune")[first : first + config.prompts])
        self._max_new_tokens = run.calibration.max_new_tokens
        self._members = [_Member(facts.section, _start(run, config, model, facts)) for model, facts in models]
        self._original = NO_TRACES
        self._row: dict[str, Any] = {}

    def ready(self) -> None:
        """Wait until every model is loaded."""
        self._all([member.actor.ready.remote() for member in self._members])

    def begin(self, seed: int, step: int, original: OriginalTraces, state: Path | None) -> None:
        """Start a seed anew, or go on with `step` from the folder that `save` wrote."""
        self._original = original
        self._wait(timeout=None)  # a seed that ends leaves its last lesson out
        held_out = original.held_out
        self._all([m.actor.begin.remote(seed, held_out, _file(state, place)) for place, m in enumerate(self._members)])
        for member in self._members:
            self._give(member, step, ())

    def catch_up(self) -> float:
        """Wait for what the shadows learn, `budget_seconds` at most; the seconds that the slowest of those done has taken.

        Raises RunError for one that failed.
        """
        done = self._wait(self.config.budget_seconds)
        answers = [self._take(member) if member.lesson in done else None for member in self._members]
        late = sum(member.lesson is not None for member in self._members)
        rates = [self._rates(answer) for answer in answers]
        self._row = {"late": late, "accuracy": _known([own for own, _ in rates]), "twin": _known([twin for _, twin in rates])}
        return max((answer.seconds for answer in answers if answer), default=0.0)

    def row(self) -> dict[str, Any]:
        """What the last `catch_up` found, for metrics.jsonl; a list has an entry for each shadow."""
        return self._row

    def score(self, prompts: Sequence[str], texts: Sequence[str]) -> list[Any]:
        """References to each shadow's scores."""
        return [member.actor.score.remote(prompts, texts) for member in self._members]

    def rewards(self, prompts: Sequence[str], texts: Sequence[str]) -> list[Any]:
        """References to what the calibration reward is made of: scores, or how much training on each text would help."""
        if self.config.use == "scorer":
            return self.score(prompts, texts)
        return [member.actor.influence.remote(prompts, texts) for member in self._members]

    def learn(self, step: int, traces: Sequence[Trace | None]) -> None:
        """Give a step's rollouts to every shadow, and to its twin those of the original; returns at once.

        Where either is None, both leave the place out. A shadow that is late misses the step, and so does its twin.
        """
        pairs = [(own, other) for own, other in zip(traces, self._original.twin[step], strict=True) if own and other]
        for member in self._members:
            if member.lesson is None:
                self._give(member, step + 1, tuple(pairs))

    def save(self, folder: Path) -> None:
        """Write the state of all, once they have learnt what they were given: a run that goes on from there is the same run."""
        self._wait(timeout=None)  # the answers stay where they are, for the next `catch_up`
        self._all([member.actor.save.remote(_file(folder, place)) for place, member in enumerate(self._members)])

    def shutdown(self) -> None:
        """Kill the processes."""
        import ray

        for member in self._members:
            ray.kill(member.actor)

    def _give(self, member: _Member, step: int, pairs: tuple[TracePair, ...]) -> None:
        prompts = self._prompts if step % self.config.measure_every == 0 else ()
        member.lesson = member.actor.learn.remote(Assignment(step, pairs, prompts, self._max_new_tokens))

    def _wait(self, timeout: float | None) -> list[Any]:
        """The lessons that are over, after all of them are or `timeout` seconds have passed."""
        import ray

        out = [member.lesson for member in self._members if member.lesson is not None]
        return ray.wait(out, num_returns=len(out), timeout=timeout)[0] if out else []

    def _take(self, member: _Member) -> Learnt:
        (answer,) = self._results([member], [member.lesson])
        member.lesson = None
        return answer

    def _rates(self, answer: Learnt | None) -> tuple[float | None, float | None]:
        """Share of right completions (mean reward) of the shadow and of its twin; a check that fails counts as wrong."""
        if answer is None or answer.completions is None:
            return None, None
        own, twin = (check_completions(self._verifier, self._prompts, completions) for completions in answer.completions)
        return _mean_reward(own), _mean_reward(twin)

    def _all(self, references: Sequence[Any]) -> list[Any]:
        return self._results(self._members, references)

    def _results(self, members: Sequence[_Member], references: Sequence[Any]) -> list[Any]:
        """What the members answer. Raises RunError (InputError where the cause is the user's input), naming the member."""
        import ray

        results = []
        for member, reference in zip(members, references, strict=True):
            try:
                results.append(ray.get(reference))
            except ray.exceptions.RayTaskError as error:
                kind = type(error.cause) if isinstance(error.cause, InputError | RunError) else RunError
                raise kind(f"{member.section}: {last_line(error.cause)}") from error
            except ray.exceptions.RayActorError as error:
                raise RunError(f"{member.section}: its process died: {last_line(error)}") from error
        return results


def _start(run: Run, config: ShadowsConfig, model: ModelConfig, facts: ModelFacts) -> Any:
    spec = shadow_spec(config, model, facts, run.scorer.batch_tokens, next_question(run.task))
    return start_shadow(spec, config.cpus, config.gpus)


def shadow_spec(
    config: ShadowsConfig, model: ModelConfig, facts: ModelFacts, scorer_batch_tokens: int, ends_before: str = ""
) -> ShadowSpec:
    from raydistill.students.job import make_reader
    from raydistill.students.shadow import ShadowSpec

    reader = make_reader(facts, model)
    return ShadowSpec(
        model=model.model,
        template=reader.template,
        prompt_format=reader.prompt_format,
        system_prompt=reader.system_prompt,
        end_id=reader.end_id,
        lr=config.lr,
        batch=config.batch,
        updates=config.updates,
        eps=config.eps if config.use == "influence" else None,
        micro_batch_tokens=config.micro_batch_tokens,
        scorer_batch_tokens=scorer_batch_tokens,
        threads=max(1, int(config.cpus)),
        ends_before=ends_before,
    )


def _file(folder: Path | None, place: int) -> Path | None:
    return None if folder is None else folder.absolute() / f"{place}.safetensors"


def _mean_reward(outcomes: Sequence[Sequence[Checked]]) -> float:
    return sum(outcome.reward for (outcome,) in outcomes) / len(outcomes)


def _known(values: list[float | None]) -> list[float | None] | None:
    return values if any(value is not None for value in values) else None
