"""The models of one run, checked."""

from __future__ import annotations

from dataclasses import dataclass

from raydistill.config.models import ModelConfig
from raydistill.config.run import Run
from raydistill.models.checkpoint import Checkpoint
from raydistill.models.preflight import ModelFacts, ModelRef, inspect_model, preflight
from raydistill.models.reward_model import reward_checkpoint


@dataclass(frozen=True)
class Role:
    """One model of a run: what was found of it, and its config with folder and template settled."""

    facts: ModelFacts
    config: ModelConfig


@dataclass(frozen=True)
class Lineup:
    """The models of a run."""

    teacher: Role
    proxy: Role | None
    shadows: tuple[Role, ...]
    """Either these or the proxy."""
    student: Role | None
    warnings: tuple[str, ...]
    reward: Checkpoint | None
    """The reward model, where one grades completions."""

    def roles(self) -> list[Role]:
        return [role for role in (self.teacher, self.proxy, *self.shadows, self.student) if role is not None]


def line_up(run: Run) -> Lineup:
    """Check all models of a run before any is loaded. Raises InputError naming the first bad field and its cure."""
    configs = {"teacher": run.teacher}
    if run.proxy:
        configs["proxy"] = run.proxy
    shadows = {f"shadows.models.{place}": model for place, model in enumerate(run.shadows.models if run.shadows else ())}
    configs |= shadows
    if run.students:
        configs["students.model"] = run.students.model
    references = {section: _reference(section, config) for section, config in configs.items()}
    found = preflight(
        references["teacher"],
        references.get("proxy"),
        [references["students.model"]] if run.students else [],
        [references[section] for section in shadows],
    )
    roles = {facts.section: Role(facts, settled(configs[facts.section], facts)) for facts in found.models}
    return Lineup(
        roles["teacher"],
        roles.get("proxy"),
        tuple(roles[section] for section in shadows),
        roles.get("students.model"),
        found.warnings,
        reward_checkpoint(run.task),
    )


def _reference(section: str, config: ModelConfig) -> ModelRef:
    return ModelRef(section, config.model, config.template, config.system_prompt)


def inspected(section: str, config: ModelConfig) -> Role:
    """One model, by itself. Raises InputError as `inspect_model` does."""
    facts = inspect_model(_reference(section, config))
    return Role(facts, settled(config, facts))


def settled(config: ModelConfig, facts: ModelFacts) -> ModelConfig:
    """A config with the folder and the template that were found."""
    return config.model_copy(update={"model": str(facts.folder), "template": facts.template})
