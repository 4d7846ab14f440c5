"""The main job at many settings; `python workflows/sweep.py --help` explains it. Also for `ray job submit -- python workflows/sweep.py`."""

from raydistill.cli import verb

if __name__ == "__main__":
    verb("sweep")
