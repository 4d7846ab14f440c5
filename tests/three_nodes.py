"""Run as a program: a cluster of a head and three nodes, one for each kind of process; prints as JSON where each process landed.

What starts the processes is what starts them in a run.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, get_args

import ray
from ray.cluster_utils import Cluster

from raydistill.cluster import Kind, placement
from raydistill.config.models import ModelConfig
from raydistill.config.students import SeqKD
from raydistill.learner.batch import LearnerSpec, ZeroSpec
from raydistill.learner.group import LearnerGroup
from raydistill.models.trio import character_tokenizer, new_model
from raydistill.rollout.engine import EngineSpec
from raydistill.rollout.pool import RolloutPool
from raydistill.runfolder import SeedFolder
from raydistill.scoring.actor import start_scorer
from raydistill.scoring.score import ScorerSpec
from raydistill.students.data import Trace
from raydistill.students.distil import Recipe
from raydistill.students.job import StudentJob
from raydistill.students.pool import run_jobs
from raydistill.students.shadow import ShadowSpec
from raydistill.students.shadow_actor import start_shadow
from raydistill.students.train import TrainJob, train
from raydistill.tasks.arithmetic import Arithmetic

KINDS = get_args(Kind)


def here() -> str:
    return ray.get_runtime_context().get_node_id()


@dataclass(frozen=True)
class Noted(StudentJob):
    """Writes down the node that does it."""

    @property
    def digest(self) -> str:
        self.out.with_suffix(".node").write_text(here())
        return super().digest


class NotedFolder(SeedFolder):
    """Writes down the node of the worker that writes the metrics."""

    def append_row(self, row: dict[str, Any]) -> None:
        (self.root / "node").write_text(here())
        super().append_row(row)


def where(actor: Any) -> str:
    return ray.get(actor.__ray_call__.remote(lambda _: here()))


def trace_of_a_student(model: ModelConfig, folder: Path, traces: tuple[Trace, ...]) -> str:
    task = Arithmetic()
    job = Noted(folder / "a", model, SeqKD(method="seqkd", steps=1, batch=2), 0, task, tuple(task.prompts("tune")[:2]), 1, 4, traces=traces)
    run_jobs([job], parallel=1, num_cpus=0.5)
    return (folder / "a.node").read_text()


def trace_of_a_worker(model: ModelConfig, folder: Path, traces: tuple[Trace, ...]) -> str:
    recipe = Recipe(steps=1, batch=2, lr=1e-3, seed=0)
    job = TrainJob(NotedFolder(folder / "train"), ZeroSpec(model=model.model, lr=1e-3), model, recipe, None, 1, traces=traces)
    job.folder.root.mkdir()
    train(job, processes=1, num_cpus=0.5, num_gpus=0, max_failures=0)
    return (job.folder.root / "node").read_text()


def landed(folder: Path) -> dict[str, str]:
    """Node ids, by process."""
    model = ModelConfig(model=str(folder / "model"))
    tokenizer = character_tokenizer()
    new_model("student", tokenizer, seed=0).save_pretrained(model.model)
    tokenizer.save_pretrained(model.model)
    traces = tuple(Trace(prompt.text, prompt.gold, ended=True) for prompt in Arithmetic().prompts("train")[:2])
    pool = RolloutPool(EngineSpec("transformers", model.model, max_model_len=64), workers=1, num_cpus=0.5)
    learner = LearnerGroup(LearnerSpec(model=model.model, lr=1e-3, kl_coef=0.1, kl_estimator="k3"), num_cpus=0.5)
    scorer = start_scorer(ScorerSpec(model.model), num_cpus=0.5)
    shadow = start_shadow(ShadowSpec(model.model, "plain", "{prompt}", "", tokenizer.eos_token_id, 1e-3, 2, 1), num_cpus=0.5, num_gpus=0)
    found: dict[str, str] = {}

    def note(name: str, find: Any) -> None:
        found[name] = find()

    finders = {
        "student task": partial(trace_of_a_student, model, folder, traces),
        "training worker": partial(trace_of_a_worker, model, folder, traces),
        "engine": partial(where, pool._actors[0]),
        "learner": partial(where, learner._actors[0]),
        "scorer": partial(where, scorer),
        "shadow": partial(where, shadow),
    }
    threads = [Thread(target=note, args=each) for each in finders.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = {cluster.add_node(num_cpus=4, resources={kind: 1}).node_id: kind for kind in KINDS}
        ray.init(address=cluster.address, log_to_driver=False)
        cluster.wait_for_nodes()
        asked = {kind: placement(kind) for kind in KINDS}
        with tempfile.TemporaryDirectory() as folder:
            found = landed(Path(folder))
        print(json.dumps({"asked": asked, "landed": {name: nodes.get(node, "head") for name, node in found.items()}}))
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
