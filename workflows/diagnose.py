"""Diagnose a teacher and a student; `--help` explains it. Also for `ray job submit -- python workflows/diagnose.py`."""

from raydistill.cli import verb

if __name__ == "__main__":
    verb("diagnose")
