"""Three-term arithmetic modulo 10, with worked traces in three styles of different difficulty for a small model.

A prompt is `7+5-9=`; a trace is two worked steps and `#answer`, right when the text after the last `#` equals the answer:

    clear    7+5=2;2-9=3;#3          everyone can learn it
    ramble   ~GAEH 7+5=2;2-9=3;#3    four random letters first: pure entropy
    cipher   Dh+g=j;j-i=f;#3         digits replaced through one of four fixed keys, named by its letter

All traces end right and no style label enters training or reward. Each of these styles starts with a character of its own.

With `corrections` there is one style more, in which either step is first done wrong, marked `x`, and done again:

    corrected    7+5=4x7+5=2;2-9=3;#3    a trace of one of the other styles, with a slip that is put right
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cache
from itertools import product

from raydistill.tasks.prompt import Prompt, Split
from raydistill.tasks.splits import split_by_hash

STYLE_SHARES = {"clear": 0.35, "ramble": 0.20, "cipher": 0.45}
CIPHER_KEYS = {"A": "dgbjaicfhe", "B": "hcfaejgbid", "C": "bieghdajcf", "D": "cajfbgehdi"}
"""Key letter -> the ten letters that stand for the digits 0 to 9."""
RAMBLE_LETTERS = "ABCDEFGH"
CORRECTION = "x"
"""Says that the step before it is wrong and is done again."""
_CORRECTED_SHARE = 0.3
CORRECTED_SHARES = {style: (1 - _CORRECTED_SHARE) * share for style, share in STYLE_SHARES.items()} | {"corrected": _CORRECTED_SHARE}
"""The mixture of the task with corrections."""
SPLIT_SIZES = {"train": 2600, "tune": 400, "report": 1000}
_SPLIT_SALT = "raydistill-arithmetic-1"


def _apply(left: int, sign: str, right: int) -> int:
    return (left + right if sign == "+" else left - right) % 10


def _steps(text: str) -> tuple[list[tuple[str, int]], int]:
    """The two worked steps of a prompt such as `7+5-9=`, each as its left side and its result, and the answer."""
    a, sign1, b, sign2, c = int(text[0]), text[1], int(text[2]), text[3], int(text[4])
    middle = _apply(a, sign1, b)
    answer = _apply(middle, sign2, c)
    return [(f"{a}{sign1}{b}=", middle), (f"{middle}{sign2}{c}=", answer)], answer


def is_right_step(step: str) -> bool:
    """Whether the result of a step such as `7+5=2` is right."""
    return _apply(int(step[0]), step[1], int(step[2])) == int(step[4])


def in_digits(completion: str) -> str:
    """A completion with the letters of its cipher, if it is in one, replaced by the digits that they stand for."""
    key = CIPHER_KEYS.get(completion[:1])
    return completion if key is None else completion[0] + completion[1:].translate(str.maketrans(key, "0123456789"))


def trace(prompt: str, style: str, rng: random.Random) -> str:
    """A right worked trace of `prompt` in a style of CORRECTED_SHARES; `rng` picks the ramble's letters, the cipher's key and the slip."""
    worked, answer = _steps(prompt)
    written = [f"{left}{result}" for left, result in worked]
    if style == "corrected":
        place = rng.randrange(len(worked))
        left, result = worked[place]
        written[place] = f"{left}{rng.choice([digit for digit in range(10) if digit != result])}{CORRECTION}{left}{result}"
        style = _drawn(STYLE_SHARES, rng)
    steps = "".join(f"{step};" for step in written)
    if style == "ramble":
        steps = "~" + "".join(rng.choices(RAMBLE_LETTERS, k=4)) + " " + steps
    elif style == "cipher":
        key = rng.choice(sorted(CIPHER_KEYS))
        steps = key + steps.translate(str.maketrans("0123456789", CIPHER_KEYS[key]))
    elif style != "clear":
        raise ValueError(f"unknown style {style!r}; known: {', '.join(CORRECTED_SHARES)}")
    return f"{steps}#{answer}"


def sample_trace(prompt: str, rng: random.Random, shares: Mapping[str, float] = STYLE_SHARES) -> str:
    """A trace in a style drawn by `shares`, by default the distribution the demo models are pretrained on."""
    return trace(prompt, _drawn(shares, rng), rng)


def _drawn(shares: Mapping[str, float], rng: random.Random) -> str:
    return rng.choices(list(shares), weights=list(shares.values()))[0]


def _prompt(text: str, shares: Mapping[str, float]) -> Prompt:
    gold = sample_trace(text, random.Random(f"gold:{text}"), shares)
    return Prompt(id=text, text=text, answer=str(_steps(text)[1]), gold=gold)


@cache
def _prompts(split: Split, corrections: bool) -> tuple[Prompt, ...]:
    """The split's prompts; every student of a run asks for them, and they never change."""
    texts = [f"{a}{s}{b}{t}{c}=" for a, s, b, t, c in product("0123456789", "+-", "0123456789", "+-", "0123456789")]
    parts = dict(zip(SPLIT_SIZES, split_by_hash(texts, list(SPLIT_SIZES.values()), _SPLIT_SALT), strict=True))
    shares = CORRECTED_SHARES if corrections else STYLE_SHARES
    return tuple(_prompt(text, shares) for text in parts[split])


class Arithmetic:
    """The embedded demo task: 4,000 prompts, hashed into 2,600 train, 400 tune and 1,000 report.

    Gold completions are drawn from the same mixture of styles as the demo models' pretraining data. With `corrections` the prompts
    and splits are the same, and the mixture is CORRECTED_SHARES.
    """

    name = "arithmetic"

    def __init__(self, corrections: bool = False) -> None:
        self._corrections = corrections

    @property
    def shares(self) -> Mapping[str, float]:
        """Share of each style among right traces of the task."""
        return CORRECTED_SHARES if self._corrections else STYLE_SHARES

    def prompts(self, split: Split) -> list[Prompt]:
        return list(_prompts(split, self._corrections))

    def verify(self, prompt: Prompt, completion: str) -> bool:
        _, mark, answer = completion.rpartition("#")
        return bool(mark) and answer == prompt.answer

    def style(self, completion: str) -> str:
        first = completion[:1]
        if self._corrections and CORRECTION in completion:
            return "corrected"
        if first == "~":
            return "ramble"
        if first in CIPHER_KEYS:
            return "cipher"
        return "clear" if first.isdigit() else "other"
