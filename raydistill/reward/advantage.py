"""From rewards to advantages. Arrays are (B prompts, G samples), S counts students; a mask says which samples take part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

STD_EPSILON = 1e-4
"""Added to a group's standard deviation, as in GRPO (arXiv 2402.03300) and TRL."""


def group_normalise(rewards_BG: Floats, mask_BG: Mask, min_spread: float, divide_by_std: bool = True) -> Floats:
    """(r - mean) / (std + 1e-4) within each row, over the samples of the mask alone; the others are 0.

    The standard deviation has ddof 1. A row with fewer than two samples, or whose standard deviation is not above
    `min_spread` (in units of the reward), is 0 throughout. Rewards outside the mask may be NaN.
    """
    rewards_BG = np.where(mask_BG, rewards_BG, 0.0)
    counts_B1 = mask_BG.sum(axis=1, keepdims=True)
    means_B1 = rewards_BG.sum(axis=1, keepdims=True) / np.maximum(counts_B1, 1)
    centred_BG = np.where(mask_BG, rewards_BG - means_B1, 0.0)
    stds_B1 = np.sqrt((centred_BG**2).sum(axis=1, keepdims=True) / np.maximum(counts_B1 - 1, 1))
    scaled_BG = centred_BG / (stds_B1 + STD_EPSILON) if divide_by_std else centred_BG
    return np.where((counts_B1 >= 2) & (stds_B1 > min_spread), scaled_BG, 0.0)


def advantages(
    task_rewards_BG: Floats | Mask,
    valid_BG: Mask,
    cal_rewards_BG: Floats,
    cal_mask_BG: Mask,
    eta: float,
    min_spread: float,
    divide_by_std: bool = True,
) -> Floats:
    """A = groupnorm(r_task) + eta * groupnorm(r_cal), each normalised on its own over its own mask.

    A mask of right samples is a task reward of 1 and 0. `valid_BG` leaves out samples whose check failed; `cal_mask_BG` those
    that get no calibration reward. With a mask of right samples there, a wrong
    sample of a mixed group keeps its task advantage alone, which is negative, whatever eta is.
    """
    task_BG = group_normalise(task_rewards_BG.astype(np.float64), valid_BG, min_spread=0.0)
    return task_BG + eta * group_normalise(cal_rewards_BG, cal_mask_BG & valid_BG, min_spread, divide_by_std)


def calibration_mask(right_BG: Mask, truncated_BG: Mask, scorable_BG: Mask, only_right: bool) -> Mask:
    """Which samples get a calibration reward: never a truncated or unscorable one, and only right ones if asked."""
    mask_BG = scorable_BG & ~truncated_BG
    return mask_BG & right_BG if only_right else mask_BG


def score_gap(proxy: Floats, denominator: Floats | None) -> Floats:
    """r_cal = s_c - s_d, in the unit of its two arguments; without a denominator (an ablation) it is s_c alone."""
    return proxy.copy() if denominator is None else proxy - denominator


def combined(rewards: Sequence[Floats], worst_for: float | None) -> Floats:
    """One calibration reward of several students': their mean or, with an eta given, the worst case for it.

    That is the reward that, times eta, is least: for eta > 0 every student has to find a text natural, for eta < 0 none may.
    """
    rewards_SBG = np.stack(rewards)
    if worst_for is None:
        return rewards_SBG.mean(axis=0)
    return rewards_SBG.max(axis=0) if worst_for < 0 else rewards_SBG.min(axis=0)


def grid(values: list[Any], samples: int, dtype: Any = np.float64) -> NDArray[Any]:
    """A flat list over all completions, prompt by prompt, as a (B, G) array."""
    return np.array(values, dtype=dtype).reshape(-1, samples)
