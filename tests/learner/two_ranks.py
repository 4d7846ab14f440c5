"""Run by `test_two_ranks.py` as `python two_ranks.py FOLDER RANK WORLD_SIZE PORT`: one learner process of a group."""

import json
import pickle
import sys
from pathlib import Path

from raydistill.learner.worker import LearnerWorker
from raydistill.models.weights import unpack


def _held(learner: LearnerWorker) -> dict[str, int]:
    """Elements of parameters, of masters and of Adam's moments that this process holds, and those of the whole model."""
    engine = learner._engine
    parameters = list(engine.module.parameters())
    state = engine.optimizer.optimizer.state
    return {
        "whole": sum(parameter.ds_numel for parameter in parameters),
        "parameters": sum(parameter.ds_tensor.numel() + parameter.data.numel() for parameter in parameters),
        "masters": sum(flat.numel() for flat in engine.optimizer.fp32_partitioned_groups_flat),
        "moments": sum(values["exp_avg"].numel() for values in state.values()),
    }


def main(folder: Path, rank: int, world_size: int, port: int) -> None:
    spec, steps = pickle.loads((folder / "job.pickle").read_bytes())
    learner = LearnerWorker(spec, rank, world_size, port=port)
    out = {"first": [learner.update(*step) for step in steps], "held": _held(learner)}
    learner.save(folder / f"saved-{world_size}")
    out["exported"] = sorted(name for bucket in learner.export(30_000) for name, _ in unpack(bucket))
    learner.reset()
    out["again"] = [learner.update(*step) for step in steps[:3]]
    learner.save_checkpoint(folder / f"checkpoint-{world_size}")
    out["rest"] = [learner.update(*step) for step in steps[3:6]]
    learner.load_checkpoint(folder / f"checkpoint-{world_size}")
    out["resumed"] = [learner.update(*step) for step in steps[3:6]]
    out["probe"] = learner.token_logprobs([1, 2, 3, 4])
    (folder / f"rank-{rank}-of-{world_size}.json").write_text(json.dumps(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
