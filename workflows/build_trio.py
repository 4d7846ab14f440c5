"""Pretrain a demo trio from nothing, which takes a few minutes, and write it to a new folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from raydistill.cli import run_command
from raydistill.models.trio import TRIOS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo_trio"), help="folder to create; runs/demo_trio by default")
    parser.add_argument("--trio", choices=list(TRIOS), default="demo", help="as in `demo:teacher`; demo by default")
    asked = parser.parse_args()

    import torch

    from raydistill.models.pretrain import build_trio
    from raydistill.models.recipes import TRIO_RECIPES

    torch.set_num_threads(1)  # more do not help models of this size, and another number gives other weights
    build_trio(TRIO_RECIPES[asked.trio], asked.out, say=print)
    print(f"written to {asked.out}")


if __name__ == "__main__":
    run_command(main)
