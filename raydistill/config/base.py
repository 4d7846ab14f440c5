"""What all parts of a config share: unknown fields are errors that name the nearest known one."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


class Strict(BaseModel):
    """A part of a config: frozen, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=(), use_attribute_docstrings=True)
    listed: ClassVar[bool] = True
    """Whether `--help` lists its fields; not where they are those of another part again."""

    @model_validator(mode="before")
    @classmethod
    def _name_nearest_field(cls, data: Any) -> Any:
        for key in data if isinstance(data, dict) else ():
            if key not in cls.model_fields:
                raise PydanticCustomError(
                    "unknown_field", "unknown field {key}; {cure}", {"key": repr(key), "cure": cls._nearest(str(key))}
                )
        return data

    @classmethod
    def _nearest(cls, key: str) -> str:
        near = difflib.get_close_matches(key, cls.model_fields, n=1)
        return f"did you mean '{near[0]}'?" if near else f"known fields: {', '.join(cls.model_fields)}"


PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]


def require_places(template: str, *names: str) -> str:
    """Raises ValueError unless `template` has each `{name}` exactly once, in this order."""
    if any(template.count(f"{{{name}}}") != 1 for name in names):
        raise ValueError(f"must contain {' and '.join(f'{{{name}}}' for name in names)}, each exactly once")
    if sorted(names, key=lambda name: template.index(f"{{{name}}}")) != list(names):
        raise ValueError(f"must contain {' before '.join(f'{{{name}}}' for name in names)}")
    return template
