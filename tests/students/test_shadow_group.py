"""Shadows in their actors: the numbers of the plain class, and a main loop that goes on when they are late."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raydistill.config.run import Run
from raydistill.errors import RunError
from raydistill.models.lineup import line_up
from raydistill.students.data import Answer, Trace
from raydistill.students.shadow import Shadow, ShadowSpec
from raydistill.students.shadow_group import OriginalTraces, ShadowGroup
from raydistill.tasks.arithmetic import Arithmetic
from raydistill.tasks.verifier import Verifier

TASK = Arithmetic()
PROMPTS = TASK.prompts("train")[:8]
GOLD = tuple(Trace(prompt.text, prompt.gold, True) for prompt in PROMPTS)
TWIN = (*(Trace(prompt.text, f"~ABCD {prompt.gold}", True) for prompt in PROMPTS[:7]), None)
ORIGINAL = OriginalTraces(twin=(TWIN,) * 4, held_out=tuple(Answer(trace, -2.0) for trace in GOLD[:4]))
TEXTS = ([trace.prompt_text for trace in GOLD], [trace.completion_text for trace in GOLD])


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(TASK, 1, 5.0) as started:
        yield started


@pytest.fixture
def group(ray_cluster: None, verifier: Verifier) -> Iterator[Callable[..., ShadowGroup]]:
    """Starts the shadows of a config and waits for them."""
    started = []

    def start(*models: str, **settings: Any) -> ShadowGroup:
        shadows = {"models": [{"model": model} for model in models], "prompts": 16, "measure_every": 2, "batch": 4, "cpus": 0.1}
        run = Run.model_validate({"teacher": {"model": "demo:teacher"}, "shadows": shadows | settings})
        assert run.shadows is not None
        roles = line_up(run).shadows
        started.append(ShadowGroup(run, run.shadows, [(role.config, role.facts) for role in roles], TASK, verifier))
        started[-1].ready()
        return started[-1]

    yield start
    for one in started:
        one.shutdown()


def get(references: list[Any]) -> list[Any]:
    import ray

    return ray.get(references)


def test_shadows_of_two_tokenizers_learn_as_the_plain_class_does(group: Callable[..., ShadowGroup], tmp_path: Path) -> None:
    shadows = group("demo:student", "demo:proxy", use="influence")
    shadows.begin(1, 0, ORIGINAL, None)
    shadows.catch_up()
    first = shadows.row()
    assert first["late"] == 0
    assert first["accuracy"] == first["twin"]  # before anything is learnt
    assert len(first["accuracy"]) == 2
    assert 0 < first["accuracy"][1] < 1
    shadows.learn(0, GOLD)
    assert shadows.catch_up() > 0
    assert shadows.row() == {"late": 0, "accuracy": None, "twin": None}
    plain = Shadow(_spec(line_up_of("demo:proxy")))
    plain.begin(1, ORIGINAL.held_out)
    plain.train(1, [(own, twin) for own, twin in zip(GOLD, TWIN, strict=True) if twin])
    assert get(shadows.score(*TEXTS))[1] == plain.score(*TEXTS)
    assert get(shadows.rewards(*TEXTS))[1] == plain.influence(*TEXTS) != plain.score(*TEXTS)
    shadows.learn(1, GOLD)
    shadows.save(tmp_path / "state")
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["0.safetensors", "1.safetensors"]
    shadows.catch_up()
    expected, scores = shadows.row(), get(shadows.score(*TEXTS))
    assert expected["accuracy"] is not None
    shadows.begin(1, 0, ORIGINAL, None)
    shadows.begin(1, 2, ORIGINAL, tmp_path / "state")
    shadows.catch_up()
    assert (shadows.row(), get(shadows.score(*TEXTS))) == (expected, scores)


def line_up_of(model: str) -> Any:
    run = Run.model_validate({"teacher": {"model": "demo:teacher"}, "shadows": {"models": [{"model": model}]}})
    return line_up(run).shadows[0]


def _spec(role: Any) -> ShadowSpec:
    return ShadowSpec(role.config.model, "plain", "{prompt}", "", role.facts.end_of_turn_id, lr=1e-3, batch=4, updates=2, eps=1e-2)


def test_the_main_loop_goes_on_when_shadows_are_late(group: Callable[..., ShadowGroup]) -> None:
    shadows = group("demo:student", updates=400, batch=32, budget_seconds=0.2)
    shadows.begin(1, 1, ORIGINAL, None)
    before = get(shadows.score(*TEXTS))
    shadows.catch_up()
    shadows.learn(1, GOLD)
    started = time.perf_counter()
    assert shadows.catch_up() == 0
    assert get(shadows.score(*TEXTS)) == before  # by the weights that are there
    assert time.perf_counter() - started < 3
    assert shadows.row() == {"late": 1, "accuracy": None, "twin": None}
    shadows.learn(2, GOLD)  # is missed
    while shadows.row()["late"]:
        assert time.perf_counter() - started < 120
        shadows.catch_up()
    assert get(shadows.score(*TEXTS)) != before
    assert shadows.row()["accuracy"] is not None
    shadows.catch_up()
    assert shadows.row() == {"late": 0, "accuracy": None, "twin": None}


def test_a_shadow_that_fails_is_named(group: Callable[..., ShadowGroup]) -> None:
    shadows = group("demo:student", lr=1e30, updates=20)
    shadows.begin(1, 1, ORIGINAL, None)
    shadows.catch_up()
    shadows.learn(1, GOLD)
    with pytest.raises(RunError, match=r"^shadows\.models\.0: a student's training diverged .*; lower the lr$"):
        shadows.catch_up()


def test_a_shadow_that_dies_is_named(group: Callable[..., ShadowGroup]) -> None:
    import ray

    shadows = group("demo:student")
    shadows.begin(1, 1, ORIGINAL, None)
    shadows.catch_up()
    ray.kill(shadows._members[0].actor)
    shadows.learn(1, GOLD)
    with pytest.raises(RunError, match=r"^shadows\.models\.0: its process died"):
        shadows.catch_up()
