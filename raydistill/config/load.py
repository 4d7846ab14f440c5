"""From a YAML file and dotted overrides to a checked config, with errors of one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import ValidationError

from raydistill.config.run import Job, Run
from raydistill.errors import InputError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

AnyJob = TypeVar("AnyJob", bound=Job)


def load_run(path: Path, overrides: Iterable[str] = ()) -> Run:
    """The main job's config of `path`; see `load_job`."""
    return load_job(Run, path, overrides)


def load_job(kind: type[AnyJob], path: Path, overrides: Iterable[str] = ()) -> AnyJob:
    """The config of `path`, of a job of this kind, with overrides such as `knob.eta=-1` applied in order.

    Raises InputError, naming the first bad field and its cure.
    """
    data = _read_yaml(path)
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals:
            raise InputError(f"{override!r}: an override looks like knob.eta=-1")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise InputError(f"{override!r}: the value is not valid YAML") from None
        set_field(data, dotted, value, override)
    return _parse(kind, data, source=str(path))


def parse_run(data: dict[str, Any], source: str) -> Run:
    """`data` as a Run. Raises InputError naming `source` and the first bad field."""
    return _parse(Run, data, source)


def _parse(kind: type[AnyJob], data: dict[str, Any], source: str) -> AnyJob:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(_fields(first, data)) or "config"
        given = "" if isinstance(first["input"], dict | list) or first["type"] == "missing" else f" (got {first['input']!r})"
        raise InputError(f"{source}: {where}: {first['msg'].removeprefix('Value error, ')}{given}") from None


def _fields(error: ErrorDetails, data: Any) -> Iterator[str]:
    """The names of fields that lead to an error; where a field has alternatives, pydantic puts the one it took among them."""
    node, last = data, len(error["loc"]) - 1
    for place, part in enumerate(error["loc"]):
        if part in node if isinstance(node, dict) else isinstance(node, list | tuple) and isinstance(part, int):
            node = node[part]
        elif place < last or error["type"] != "missing":
            continue
        yield str(part)


def dump_run(run: Job) -> str:
    """The resolved config as YAML; `load_job` reads it back to an equal config."""
    return yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--config {path}: cannot be read ({error.strerror}); name an existing YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(data, dict):
        raise InputError(f"--config {path}: must hold fields such as 'teacher: ...', not {type(data).__name__}")
    return data


def set_field(data: dict[str, Any], dotted: str, value: Any, source: str) -> None:
    """Set a field such as `knob.eta` in place. Raises InputError, naming `source`, where there can be no such field."""
    keys = dotted.split(".")
    if not all(keys):
        raise InputError(f"{source!r}: a field looks like knob.eta")
    node: Any = data
    for key in keys[:-1]:
        node = _child(node, key, source)
    if isinstance(node, list):
        node[_index(node, keys[-1], source)] = value
    else:
        node[keys[-1]] = value


def _child(node: Any, key: str, source: str) -> Any:
    if isinstance(node, list):
        child = node[_index(node, key, source)]
    else:
        if node.get(key) is None:
            node[key] = {}
        child = node[key]
    if not isinstance(child, dict | list):
        raise InputError(f"{source!r}: '{key}' holds {child!r}, which has no fields")
    return child


def _index(node: list[Any], key: str, source: str) -> int:
    if not key.isdigit() or int(key) >= len(node):
        raise InputError(f"{source!r}: '{key}' must be an index from 0 to {len(node) - 1}")
    return int(key)
