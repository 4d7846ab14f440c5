"""The main job; `python workflows/calibrate.py --help` explains it. Also for `ray job submit -- python workflows/calibrate.py`."""

from raydistill.cli import verb

if __name__ == "__main__":
    verb("calibrate")
