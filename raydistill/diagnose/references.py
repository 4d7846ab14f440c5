"""What a figure of the student is set beside, where its definition says nothing of it: the teacher's."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def against(found: Json, teacher: Json) -> Json:
    """The same figures; one without a reference of its own gets the teacher's value, where that was measured."""
    return {name: _against(one, teacher.get(name)) for name, one in found.items()}


def _against(one: Any, teachers: Any) -> Any:
    if not isinstance(one, dict) or not isinstance(teachers, dict):
        return one
    if "value" not in one:
        return against(one, teachers)
    return one | {"reference": teachers.get("value")} if one["reference"] is None else one
