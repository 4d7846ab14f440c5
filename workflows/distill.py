"""Distil one student; `python workflows/distill.py --help` explains it. Also for `ray job submit -- python workflows/distill.py`."""

from raydistill.cli import verb

if __name__ == "__main__":
    verb("distill")
