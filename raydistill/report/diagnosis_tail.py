"""What the page of a diagnosis shows of the tail beside its curve: whose tokens it is, and what losses over the top k see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from raydistill.diagnose.verdict import figure_in_words
from raydistill.report.scores import Json

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""Caption, column heads, rows."""


def tail_tables(noise: Json) -> Iterator[Table]:
    """None of what was not measured."""
    if noise.get("losses"):
        yield _losses(noise["losses"])
    for kl, one in (("KL(teacher || student)", noise), ("KL(student || teacher)", noise.get("reverse", {}))):
        if one.get("by_frequency"):
            yield _classes(kl, one["by_frequency"])
        for k, tokens in one.get("heaviest", {}).items():
            if tokens:
                yield _heaviest(kl, k, tokens)


def _losses(losses: Sequence[Json]) -> Table:
    caption = "What a loss over the teacher's top k sees of KL(teacher || student), renormalised over them or with one bucket for the tail."
    ways = ("renormalised", "tail_bucket", "whole")
    rows = [(str(row["k"]), *(figure_in_words(row[way]) for way in ways)) for row in losses]
    return caption, ("k", "renormalised over the top k", "with a tail bucket (KL@k)", "whole vocabulary"), rows


def _classes(kl: str, by_frequency: Json) -> Table:
    caption = f"{kl} beyond k, by how often the teacher wrote the tokens in its completions here; the classes sum to the share beyond k."
    rows = [
        (k, name, f"{one['tokens']:,}", f"{100 * one['written']:.1f} %", figure_in_words(one))
        for k, classes in by_frequency.items()
        for name, one in classes.items()
    ]
    return caption, ("beyond k", "written", "tokens", "of all that was written", "carry"), rows


def _heaviest(kl: str, k: str, tokens: Sequence[Json]) -> Table:
    caption = f"The tokens that carry most of {kl} beyond k = {k}, and their share of it."
    rows = [
        (
            repr(one["token"]) if one["token"].strip() != one["token"] else one["token"],
            str(one["id"]),
            f"{100 * one['share']:.2f} %",
            str(one["written"]),
        )
        for one in tokens
    ]
    return caption, ("token", "id", "share of the tail", "times written"), rows
