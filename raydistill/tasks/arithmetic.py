"""Three-term arithmetic modulo 10, with worked traces in three styles of different difficulty for a small model.

A prompt is `7+5-9=`; a trace is two worked steps and `#answer`, right when the text after the last `#` equals the answer:

    clear    7+5=2;2-9=3;#3          everyone can learn it
    ramble   ~GAEH 7+5=2;2-9=3;#3    four random letters first: pure entropy
    cipher   Di+h=a;a-f=c;#3         digits replaced through one of four fixed keys, named by its letter

All traces end right and no style label enters training or reward. Each style starts with a character of its own.
"""

from __future__ import annotations

import random
from functools import cache
from itertools import product

from raydistill.tasks.prompt import Prompt, Split
from raydistill.tasks.splits import split_by_hash

STYLE_SHARES = {"clear": 0.35, "ramble": 0.20, "cipher": 0.45}
CIPHER_KEYS = {"A": "dgbjaicfhe", "B": "hcfaejgbid", "C": "bieghdajcf", "D": "cajfbgehdi"}
"""Key letter -> the ten letters that stand for the digits 0 to 9."""
RAMBLE_LETTERS = "ABCDEFGH"
SPLIT_SIZES = {"train": 2600, "tune": 400, "report": 1000}
_SPLIT_SALT = "raydistill-arithmetic-1"


def _apply(left: int, sign: str, right: int) -> int:
    return (left + right if sign == "+" else left - right) % 10


def _steps(text: str) -> tuple[str, int]:
    """The worked steps of a prompt such as `7+5-9=`, and its answer."""
    a, sign1, b, sign2, c = int(text[0]), text[1], int(text[2]), text[3], int(text[4])
    middle = _apply(a, sign1, b)
    answer = _apply(middle, sign2, c)
    return f"{a}{sign1}{b}={middle};{middle}{sign2}{c}={answer};", answer


def trace(prompt: str, style: str, rng: random.Random) -> str:
    """A right worked trace of `prompt` in a style of STYLE_SHARES; `rng` picks the ramble's letters or the cipher's key."""
    steps, answer = _steps(prompt)
    if style == "ramble":
        steps = "~" + "".join(rng.choices(RAMBLE_LETTERS, k=4)) + " " + steps
    elif style == "cipher":
        key = rng.choice(sorted(CIPHER_KEYS))
        steps = key + steps.translate(str.maketrans("0123456789", CIPHER_KEYS[key]))
    elif style != "clear":
        raise ValueError(f"unknown style {style!r}; known: {', '.join(STYLE_SHARES)}")
    return f"{steps}#{answer}"


def sample_trace(prompt: str, rng: random.Random) -> str:
    """A trace in a style drawn by STYLE_SHARES: the distribution the demo models are pretrained on."""
    style = rng.choices(list(STYLE_SHARES), weights=list(STYLE_SHARES.values()))[0]
    return trace(prompt, style, rng)


def _prompt(text: str) -> Prompt:
    gold = sample_trace(text, random.Random(f"gold:{text}"))
    return Prompt(id=text, text=text, answer=str(_steps(text)[1]), gold=gold)


@cache
def _prompts(split: Split) -> tuple[Prompt, ...]:
    """The split's prompts; every student of a run asks for them, and they never change."""
    texts = [f"{a}{s}{b}{t}{c}=" for a, s, b, t, c in product("0123456789", "+-", "0123456789", "+-", "0123456789")]
    parts = dict(zip(SPLIT_SIZES, split_by_hash(texts, list(SPLIT_SIZES.values()), _SPLIT_SALT), strict=True))
    return tuple(_prompt(text) for text in parts[split])


class Arithmetic:
    """The embedded demo task: 4,000 prompts, hashed into 2,600 train, 400 tune and 1,000 report.

    Gold completions are drawn from the same mixture of styles as the demo models' pretraining data.
    """

    name = "arithmetic"

    def prompts(self, split: Split) -> list[Prompt]:
        return list(_prompts(split))

    def verify(self, prompt: Prompt, completion: str) -> bool:
        _, mark, answer = completion.rpartition("#")
        return bool(mark) and answer == prompt.answer

    def style(self, completion: str) -> str:
        first = completion[:1]
        if first == "~":
            return "ramble"
        if first in CIPHER_KEYS:
            return "cipher"
        return "clear" if first.isdigit() else "other"
