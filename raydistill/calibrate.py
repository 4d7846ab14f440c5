"""Algorithm 1: calibrate a teacher by reinforcement fine-tuning, so that it becomes easier or harder to distil from.

for step in steps:
    completions = G samples for each prompt from the teacher
    r_task      = verifier(prompt, completion)
    r_cal       = score(proxy) - score(denominator), or what shadow students make of it
    A           = groupnorm(r_task) + eta * groupnorm(r_cal)
    learner.update(completions, A, anchor log-probs)
    rollout workers take the new weights; shadow students learn from the completions
    stop when the KL budget is spent; with a target, once students distilled on the way are where they were asked to be
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from raydistill.batch import StepBatch, step_metrics
from raydistill.config.run import Run
from raydistill.crew import Crew
from raydistill.errors import RunError
from raydistill.runfolder import SeedFolder
from raydistill.students.shadow_group import NO_TRACES, OriginalTraces
from raydistill.target import ClosedLoop, Measure
from raydistill.tasks.prompt import Prompt
from raydistill.timing import Phases


def calibrate(
    run: Run,
    seed: int,
    crew: Crew,
    folder: SeedFolder,
    on_step: Callable[[dict[str, Any]], None],
    original: OriginalTraces = NO_TRACES,
    measure: Measure | None = None,
    until: int | None = None,
) -> None:
    """Calibrate the teacher with one seed and leave it in `folder.teacher`; goes on from the last checkpoint there.

    `original` is for the shadow students, where the run has any; `measure` is for the target, likewise. With `until` at most so many
    steps are done, and a checkpoint is left instead.
    """
    prompts = crew.task.prompts("train")
    shadows = crew.shadows
    done = start = _begin(crew, folder)
    loop = ClosedLoop(run, run.knob.target, crew, folder, measure) if run.knob.target and measure else None
    if shadows:
        shadows.begin(seed, start, original, folder.shadows(start) if start else None)
    for step in range(start, until or run.calibration.steps):
        if loop and loop.over:
            break
        phases = Phases()
        if step == start or run.learner.settings(step) != run.learner.settings(step - 1):
            crew.learner.set(*run.learner.settings(step))
        knob = loop.knob if loop else run.knob
        with phases("rollout"):
            batch = crew.sample(prompts_of_step(prompts, run.calibration.prompts, seed, step), seed=step_seed(seed, step))
        with phases("verify"):
            crew.verify(batch)
            _stop_if_unverifiable(batch, run)
        if shadows:
            with phases("shadow"):
                phases.seconds["shadow_training"] = shadows.catch_up()
        with phases("score"):
            crew.score(batch, knob.eta)
            batch.compute_advantages(knob)
        with phases("learn"):
            kl = crew.kl(batch)
            if kl >= run.knob.kl_limit and not loop:
                break
            if shadows:
                shadows.learn(step, batch.traces())  # while the learner and the next rollouts go on
            update = crew.update(batch)
        with phases("sync"):
            deviation = crew.sync(step + 1)
        looked = {}
        if loop:
            with phases("target"):
                looked = loop.look(step + 1, kl)
        row = step_metrics(step, batch, kl, update, deviation, run.knob.normalization, phases.seconds) | looked
        if shadows:
            row["shadows"] = shadows.row()
        folder.append_row(row)
        on_step(row)
        done = step + 1
        if done % run.calibration.checkpoint_every == 0:
            _save(crew, folder, done)
            if loop:
                loop.drop_worse()
    if until:
        if folder.last_checkpoint() != done:
            _save(crew, folder, done)
        return
    if loop:
        loop.settle()
    crew.learner.save(folder.teacher)


def prompts_of_step(prompts: Sequence[Prompt], count: int, seed: int, step: int) -> list[Prompt]:
    """Prompts of a step: consecutive pieces of the split, shuffled anew for each pass and seed."""
    chosen = []
    for index in range(step * count, (step + 1) * count):
        epoch, place = divmod(index, len(prompts))
        chosen.append(prompts[_shuffled(len(prompts), seed, epoch)[place]])
    return chosen


def step_seed(seed: int, step: int) -> int:
    """The sampling seed of a step."""
    return seed * 1_000_003 + step


@lru_cache(maxsize=2)
def _shuffled(count: int, seed: int, epoch: int) -> list[int]:
    order = list(range(count))
    random.Random(f"{seed}:{epoch}").shuffle(order)
    return order


def _begin(crew: Crew, folder: SeedFolder) -> int:
    """Put learner and engines where the last checkpoint left them, or at the start; the step to go on with."""
    step = folder.last_checkpoint() or 0
    crew.learner.reset()
    if step:
        crew.learner.load_checkpoint(folder.checkpoint(step))
    folder.keep_rows(step)
    crew.sync(step)
    return step


def _save(crew: Crew, folder: SeedFolder, step: int) -> None:
    if crew.shadows:
        crew.shadows.save(folder.shadows(step))
    crew.learner.save_checkpoint(folder.checkpoint(step))
    folder.drop_checkpoints_before(step)


def _stop_if_unverifiable(batch: StepBatch, run: Run) -> None:
    share = batch.verifier_failures / len(batch.completions)
    if share > run.verifier.max_failures:
        raise RunError(
            f"{share:.0%} of the step's checks timed out or crashed, over verifier.max_failures = {run.verifier.max_failures:.0%}; "
            "raise verifier.timeout or look at the completions"
        )
