"""Every field of a config with its default and description, for `--help`; and the JSON schema for editors."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from raydistill.config.run import Job, Run


def fields(model: type[BaseModel] = Run, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(dotted name, default, description) of every field, in the order of the config."""
    for name, field in model.model_fields.items():
        parts = list(_models_in(field.annotation))
        if not parts or _takes_other_values(field.annotation):
            yield prefix + name, _default(field), field.description or ""
        for part in parts:
            yield from fields(part, f"{prefix}{name}{_choice(part, len(parts))}.")


def json_schema(job: type[Job] = Run) -> dict[str, Any]:
    return job.model_json_schema()


def help_text(job: type[Job] = Run) -> str:
    r"""The fields as click's pre-formatted paragraphs (`\b`)."""
    rows = ["  " + name + (f" = {default}" if default else "") + f"\n      {text}" for name, default, text in fields(job)]
    return "\b\nFields of a config, each of which FIELD=VALUE can set:\n" + "\n".join(rows)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if getattr(annotation, "listed", True):
            yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, tuple) or hasattr(annotation, "__metadata__"):
        for argument in get_args(annotation):
            yield from _models_in(argument)


def _takes_other_values(annotation: Any) -> bool:
    """Whether a field that can hold a model can hold something else too, and not only nothing, such as a list."""
    if hasattr(annotation, "__metadata__"):
        return _takes_other_values(get_args(annotation)[0])
    alternatives = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ()
    return any(one is not type(None) and not list(_models_in(one)) for one in alternatives)


def _choice(part: type[BaseModel], alternatives: int) -> str:
    """For a union, which alternative a field belongs to, such as `[maths]`."""
    discriminator = next((f for n, f in part.model_fields.items() if n in ("kind", "method")), None)
    return f"[{get_args(discriminator.annotation)[0]}]" if discriminator is not None and alternatives > 1 else ""


def _default(field: FieldInfo) -> str:
    return "" if field.default is PydanticUndefined else str(field.default)
