"""Measure one model on one task; `--help` explains it. Also for `ray job submit -- python workflows/evaluate.py`."""

from raydistill.cli import verb

if __name__ == "__main__":
    verb("evaluate")
