"""Multiple-choice questions, from a file or a hub data set; a completion answers with a letter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raydistill.errors import InputError
from raydistill.tasks.chosen_letter import chosen_letter
from raydistill.tasks.columns import is_nothing
from raydistill.tasks.data_files import Row
from raydistill.tasks.data_task import DataTask
from raydistill.tasks.fill import fill
from raydistill.tasks.letters import LETTERS, place_of
from raydistill.tasks.prompt import Prompt, Split, hashed_id
from raydistill.tasks.source import Given

if TYPE_CHECKING:
    from raydistill.config.data import Where
    from raydistill.config.task import AnswerIs


class Choice(DataTask):
    """A multiple-choice task over data sets.

    `options` is the column of the options: a list of texts; a list of mappings with a `text` and maybe a `label` each; or one mapping
    with a list `text` and maybe a list `label`. Whatever their own labels, they are shown as A, B, C ... in the data set's order.
    `answer` is the column that tells the right one: by its label (a letter, where options have none), its place from 0, or its text, as
    `answer_is` says. `layout` puts question and options into a prompt. Questions count as the same if question and options are,
    in whatever order.
    """

    name = "choice"
    columns = ("question", "options", "answer", "gold", "group")

    def __init__(
        self,
        data: Mapping[Split, Given | None],
        question: str = "question",
        options: str = "options",
        answer: str = "answer",
        answer_is: AnswerIs = "label",
        layout: str = "{question}\n{options}",
        gold: str | None = None,
        limit: int | None = None,
        where: Where | None = None,
        group: str | None = None,
        drop_contaminated: bool = False,
    ) -> None:
        columns = {"question": question, "options": options, "answer": answer, "gold": gold, "group": group}
        super().__init__(data, columns | {"answer_is": answer_is, "where": where}, limit, drop_contaminated)
        self._layout = layout

    def verify(self, prompt: Prompt, completion: str) -> bool:
        """Whether the letter that the completion chooses is the right option's; see `chosen_letter` for what counts as one."""
        chosen = chosen_letter(completion)
        return chosen is not None and chosen.letter == prompt.answer

    def style(self, completion: str) -> str:
        """How the letter is given: `hash` (`#### B`), `boxed`, `stated` ("the answer is"), `letter` by itself, or `none`."""
        chosen = chosen_letter(completion)
        return chosen.manner if chosen else "none"

    def _prompt(self, row: Row) -> Prompt:
        question = row.text("question")
        labels, options = _options(row)
        place = self._right(row, labels, options)
        text = fill(self._layout, question=question, options=_listed(options))
        same = "\n".join((question, *sorted(options)))
        gold, group = row.text_if_any("gold"), row.text_if_any("group")
        return Prompt(hashed_id(same), text, LETTERS[place], gold, tuple(options), group)

    def _compared(self, prompt: Prompt) -> str:
        return prompt.text.replace(_listed(prompt.options), "\n".join(sorted(prompt.options)))

    def _wanted(self, prompt: Prompt) -> str:
        return prompt.options[place_of(prompt.answer)]  # a repeat may have its options in another order

    def _right(self, row: Row, labels: Sequence[str], options: Sequence[str]) -> int:
        """The place of the right option, from 0."""
        answer, answer_is = row.text("answer"), row.source.settings["answer_is"]
        known = {"label": labels, "index": [str(place) for place in range(len(options))], "text": options}[answer_is]
        if answer in known:
            return known.index(answer)
        shown = ", ".join(repr(name[:20]) for name in known)
        raise InputError(
            f"{row.source.field_of('answer')}: {answer[:60]!r} in {row} is the {answer_is} of none of its options ({shown}); "
            f"set {row.source.field_of('answer_is')} to label, index or text"
        )


def _listed(options: Sequence[str]) -> str:
    return "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))


def _options(row: Row) -> tuple[list[str], list[str]]:
    """Labels and texts of a row's options. Raises InputError for what are no options."""
    where = f"{row.place('options')} has"
    labels, texts = _parts(row.values["options"], where)
    while texts and is_nothing(texts[-1]):  # tables fill up rows of few options
        texts.pop()
    if not 2 <= len(texts) <= len(LETTERS):
        raise InputError(f"{where} {len(texts)} options; a question needs 2 to {len(LETTERS)}")
    for place, text in enumerate(texts):
        if is_nothing(text) or isinstance(text, list | dict):
            raise InputError(f"{where} no text for option {LETTERS[place]}; fill it or leave the row out")
    names = list(LETTERS) if labels is None else [row.plain("options", label) for label in labels]
    if len(names) < len(texts) or len(set(names)) < len(names):
        raise InputError(
            f"{where} {len(texts)} options but the labels {', '.join(repr(name[:20]) for name in names)}; each needs one of its own"
        )
    return names[: len(texts)], [row.plain("options", text) for text in texts]


def _parts(value: Any, where: str) -> tuple[list[Any] | None, list[Any]]:
    """Labels, None without any, and texts of one of the three forms of options."""
    if isinstance(value, Mapping) and isinstance(value.get("text"), list):
        return value.get("label"), list(value["text"])
    if isinstance(value, list) and value and all(isinstance(one, Mapping) and "text" in one for one in value):
        labels = [one.get("label") for one in value]
        return (None if all(map(is_nothing, labels)) else labels), [one["text"] for one in value]
    if isinstance(value, list):
        return None, list(value)
    raise InputError(f"{where} no list of options there; name a column with texts, or with `label` and `text` of each")
