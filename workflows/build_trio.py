"""Pretrain the demo trio from nothing, which takes a few minutes, and write it to a new folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from raydistill.cli import run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo_trio"), help="folder to create; runs/demo_trio by default")
    out: Path = parser.parse_args().out

    import torch

    from raydistill.models.pretrain import build_trio

    torch.set_num_threads(1)  # more do not help models of this size, and another number gives other weights
    build_trio(out, say=print)
    print(f"written to {out}")


if __name__ == "__main__":
    run_command(main)
