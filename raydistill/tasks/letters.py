"""The letters that stand for the options of a question."""

from __future__ import annotations

import string

LETTERS = tuple(string.ascii_uppercase)
"""A for the first option."""


def place_of(letter: str) -> int:
    """Which option a letter stands for, from 0. Raises ValueError for what is no capital letter."""
    return LETTERS.index(letter)
