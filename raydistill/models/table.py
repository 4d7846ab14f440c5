"""A table of the models of a run, a column each: what must fit together, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from raydistill.models.preflight import ModelFacts
from raydistill.models.vocabulary import relation

if TYPE_CHECKING:
    from rich.table import Table

_ROWS: dict[str, Callable[[ModelFacts], str]] = {
    "path": lambda facts: str(facts.folder),
    "type": lambda facts: facts.model_type,
    "parameters": lambda facts: f"{facts.parameters:,}",
    "vocabulary": lambda facts: f"{facts.vocab:,}",
    "embedding rows": lambda facts: f"{facts.embedding_rows:,}",
    "context": lambda facts: "not stated" if facts.context is None else f"{facts.context:,}",
    "template": lambda facts: facts.template,
    "bos": lambda facts: "-" if facts.bos_id is None else facts.token(facts.bos_id),
    "end of turn": lambda facts: facts.token(facts.end_of_turn_id),
    "stops at": lambda facts: " ".join(map(facts.token, facts.eos_ids)),
}


def models_table(models: Sequence[ModelFacts]) -> Table:
    """Of several models the teacher is first; the tokenizers of the others are compared with its own."""
    from rich.table import Column, Table
    from rich.text import Text

    teacher, *others = models
    columns = (Column(facts.section, overflow="fold") for facts in models)
    table = Table(Column("model", no_wrap=True), *columns, title="models", title_justify="left")
    rows = [[name, *map(tell, models)] for name, tell in _ROWS.items()]
    if others:
        rows.append(["tokenizer", "the teacher's", *(relation(facts.vocabulary, teacher.vocabulary) for facts in others)])
    for row in rows:
        # Text: a token such as [/INST] is no markup. Folded: a path has no spaces to break at.
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    return table
