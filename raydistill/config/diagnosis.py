"""Whether a run's report has traps and symptoms before and after."""

from __future__ import annotations

from raydistill.config.base import PositiveInt, Strict


class DiagnosisConfig(Strict):
    """Traps and symptoms of every student beside its teacher, with the original and the calibrated one: see `raydistill diagnose`."""

    prompts: PositiveInt = 200
    """Use the first this many of the prompts that everything is measured on."""
    samples: PositiveInt = 4
    """Completions of each prompt, at temperature 1, by teacher and student."""
    wrong_pairs: PositiveInt = 200
    """Pairs of a wrong and a right trace of one prompt that wrong-trace preference needs; where the teacher's own are fewer, or of fewer
    than 10 prompts, steps of its right traces are corrupted, or of gold completions where those are fewer, too."""
