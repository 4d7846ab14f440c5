"""Memory and time of the fused JSD against the plain one, forward and backward, each in a process of its own (Linux)."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from raydistill.students.fused import fused_jsd_loss
from raydistill.students.losses import jsd_loss


def main() -> None:
    arguments = _arguments()
    if arguments.only:
        print(json.dumps(measure(arguments)))
        return
    results = {}
    for kind in ("plain", "fused"):
        command = [sys.executable, __file__, *sys.argv[1:], "--only", kind]
        results[kind] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    print(f"M = {arguments.positions}, V = {arguments.vocabulary}, D = {arguments.width}, jsd_beta = {arguments.jsd_beta}")
    print("              loss   peak MiB    seconds  CPU seconds")
    for kind, result in results.items():
        print(f"{kind} {result['loss']:12.4f} {result['mib']:10.0f} {result['seconds']:10.2f} {result['cpu_seconds']:12.2f}")
    ratios = (results["fused"][name] / results["plain"][name] for name in ("loss", "mib", "seconds", "cpu_seconds"))
    print("ratio {:12.4f} {:10.3f} {:10.2f} {:12.2f}".format(*ratios))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--positions", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=262_144)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--chunk", type=int, default=128, help="positions of a chunk of the fused loss")
    parser.add_argument("--jsd-beta", type=float, default=0.5)
    parser.add_argument("--only", choices=["plain", "fused"], help="measure this one, here, and print JSON")
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """The loss, the peak resident memory above that before, in MiB, and the seconds; those of the CPU, for a busy machine."""
    step(arguments, _inputs(8, 16, 4))  # loads what is loaded only once
    inputs = _inputs(arguments.positions, arguments.vocabulary, arguments.width)
    before, start, cpu_start = _mib("VmRSS"), time.perf_counter(), time.process_time()
    loss = step(arguments, inputs)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    return {"loss": loss, "seconds": seconds, "cpu_seconds": cpu_seconds, "mib": _mib("VmHWM") - before}


def step(arguments: argparse.Namespace, inputs: list[Tensor]) -> float:
    student_hidden_MD, student_head_VD, teacher_hidden_MD, teacher_head_VD = inputs
    if arguments.only == "fused":
        loss = fused_jsd_loss(*inputs, jsd_beta=arguments.jsd_beta, chunk=arguments.chunk)
    else:
        loss = jsd_loss(student_hidden_MD @ student_head_VD.T, teacher_hidden_MD @ teacher_head_VD.T, arguments.jsd_beta)
    loss.backward()
    return float(loss.detach())


def _inputs(positions: int, vocabulary: int, width: int) -> list[Tensor]:
    """Hidden states and head of the student, which need gradients, and of the teacher; the logits have a variance of 1."""
    torch.manual_seed(0)
    shapes = [(positions, width), (vocabulary, width)] * 2
    tensors = [torch.randn(shape).mul_(width**-0.25) for shape in shapes]
    return [tensor.requires_grad_(place < 2) for place, tensor in enumerate(tensors)]


def _mib(field: str) -> float:
    """A field of this process's memory status: VmRSS, resident now, or VmHWM, the most that ever was."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


if __name__ == "__main__":
    main()
