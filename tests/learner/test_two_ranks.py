"""Two ZeRO-3 processes against one: the same run, each holding half of it."""

import json
import os
import pickle
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("two_ranks.py")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "DS_ACCELERATOR": "cpu"}


def _start(folder: Path, rank: int, port: int) -> subprocess.Popen:
    log = (folder / f"log-{rank}").open("w")
    command = [sys.executable, str(SCRIPT), str(folder), str(rank), "2", str(port)]
    return subprocess.Popen(command, env=os.environ | ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT)


def _result(folder: Path, rank: int, world_size: int) -> dict:
    return json.loads((folder / f"rank-{rank}-of-{world_size}.json").read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory, make_spec, make_batch, free_ports) -> dict[int, tuple[Path, list[dict]]]:
    """Ten steps with one and with two processes, and what they saved. The third step has one sample for two processes."""
    folder = tmp_path_factory.mktemp("two_ranks")
    spec = make_spec(persistence_threshold=0, micro_batch_tokens=64, updates_per_step=2)
    steps = [make_batch(seed=100 + step, size=1 if step == 2 else 7) for step in range(10)]
    (folder / "job.pickle").write_bytes(pickle.dumps((spec, steps)))
    port = free_ports()
    processes = [_start(folder, rank, port) for rank in range(2)]
    runpy.run_path(str(SCRIPT))["main"](folder, rank=0, world_size=1, port=free_ports())
    for rank, process in enumerate(processes):
        assert process.wait(timeout=300) == 0, (folder / f"log-{rank}").read_text()
    return {world: (folder, [_result(folder, rank, world) for rank in range(world)]) for world in (1, 2)}


def test_ten_steps_have_the_same_metrics(runs) -> None:
    one, two = runs[1][1][0], runs[2][1][0]
    for step, (expected, got) in enumerate(zip(one["first"], two["first"], strict=True)):
        assert got == pytest.approx(expected, rel=1e-4, abs=1e-4), f"step {step}"
    assert runs[2][1][1]["first"] == two["first"]


def test_ten_steps_lead_to_the_same_weights(runs) -> None:
    one, two = (load_file(folder / f"saved-{world}" / "model.safetensors") for world, (folder, _) in runs.items())
    assert one.keys() == two.keys()
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-4
    assert runs[2][1][0]["exported"] == sorted(one)
    assert runs[2][1][1]["exported"] == []  # only rank 0 lets weights out
    assert runs[2][1][0]["probe"] == pytest.approx(runs[1][1][0]["probe"], abs=1e-4)


def test_each_process_holds_half(runs) -> None:
    for rank in runs[2][1]:
        held = rank["held"]
        for part in ("parameters", "masters", "moments"):
            assert 0 < held[part] <= 0.55 * held["whole"], part


def test_reset_and_resume_are_bit_equal_on_two_processes(runs) -> None:
    for rank in runs[2][1]:
        assert rank["again"] == rank["first"][:3]
        assert rank["resumed"] == rank["rest"] == rank["first"][3:6]
