"""The embedded demo: calibrations at eta -1, 0 and +1, their students, and the knob's curve in `runs/demo/report.html`."""

from raydistill.cli import verb

if __name__ == "__main__":
    verb("demo")
