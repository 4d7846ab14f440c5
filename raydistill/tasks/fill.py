"""Texts with places to fill in, such as `{question}`."""

from __future__ import annotations

import re


def fill(template: str, **values: str) -> str:
    """`template` with each `{name}` of `values` replaced. Braces in the values, and other braces, stay as they are."""
    pattern = re.compile("|".join(rf"\{{{name}\}}" for name in values))
    return pattern.sub(lambda found: values[found[0][1:-1]], template)
