"""A run file to a RunConfig: TOML text, overlays, `--set section.field=value`, validation.

Error messages give the user's value and the values that are allowed.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from raydistill.config.run_config import RENAMED, RunConfig
from raydistill.credentials import check_no_secret
from raydistill.errors import UserError
from raydistill.files.inputs.decoding import decode_text
from raydistill.files.uris import read_uri


def read_text(path: str, *, what: str = "config file") -> str:
    """The text of the run file at `path`, local or a URI, in any Unicode encoding.

    Raises:
        UserError: no such file, or it cannot be read or decoded.
    """
    try:
        return decode_text(read_uri(path), name=path)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"no such {what}: {path}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}") from error


def parse_tables(text: str, *, name: str) -> dict[str, Any]:
    """The tables of a TOML text; `name` is its name in error messages.

    Raises:
        UserError: not TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{name} is not valid TOML: {error}") from error


def lay_over(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    """Merge `above` into `below` in place: tables field by field, other values are replaced.

    `soft_labels.weights` is replaced as a whole: it keeps no teacher that `above` omits.
    """
    given, old = above.get("soft_labels"), below.get("soft_labels")
    if isinstance(given, Mapping) and "weights" in given and isinstance(old, dict):
        old.pop("weights", None)
    _merge(below, above)


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for name, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(name), dict):
            _merge(below[name], value)
        else:
            below[name] = value


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Set the field that `section.field=value` names.

    Raises:
        UserError: another form, or one of the sections is a value.
    """
    name, equals, text = override.partition("=")
    *tables, field = name.strip().split(".")
    if not equals or not field:
        raise UserError(f"--set {override!r}: write section.field=value")
    node = raw
    for table in tables:
        node = node.setdefault(table, {})
        if not isinstance(node, dict):
            raise UserError(f"--set {override!r}: {table} is a value, not a section")
    node[field] = _toml_value(text.strip())


def _toml_value(text: str) -> object:
    """`text` parsed as a TOML value; text that is not TOML is a string without quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def load_config(
    path: str, *, overlays: Sequence[Mapping[str, Any]] = (), overrides: Sequence[str] = ()
) -> RunConfig:
    """Read the run file at `path`, apply overlays, then `section.field=value`, and validate.

    Raises:
        UserError: no such file, not TOML, or settings that are not allowed.
    """
    return parse_config(read_text(path), name=path, overlays=overlays, overrides=overrides)


def parse_config(
    text: str,
    *,
    name: str,
    overlays: Sequence[Mapping[str, Any]] = (),
    overrides: Sequence[str] = (),
) -> RunConfig:
    """As `load_config`, from the text of a run file; `name` is its name in error messages.

    Raises:
        UserError: as `load_config`.
    """
    raw = parse_tables(text, name=name)
    for overlay in overlays:
        lay_over(raw, overlay)
    for override in overrides:
        apply_override(raw, override)
    _check_no_secrets(raw)
    return to_config(raw, name=name)


def _check_no_secrets(value: object, *, where: str = "") -> None:
    """Raise UserError if a setting has credentials in a URI: no message must show them."""
    if isinstance(value, str):
        check_no_secret(where, value)
    elif isinstance(value, Mapping):
        for name, below in value.items():
            _check_no_secrets(below, where=f"{where}.{name}" if where else name)
    elif isinstance(value, list):
        for below in value:
            _check_no_secrets(below, where=where)


def to_config(raw: Mapping[str, Any], *, name: str) -> RunConfig:
    """The RunConfig of the tables of a run file.

    Raises:
        UserError: settings that are not allowed.
    """
    try:
        return RunConfig.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{name}: " + "; ".join(map(_explain, error.errors()))) from error


def _explain(error: Mapping[str, Any]) -> str:
    """The message for one validation error; for an unknown field, with the most similar names."""
    loc = [str(part) for part in error["loc"]]
    where = ".".join(loc) or "the file"
    if error["type"] == "missing":
        return f"{where} is missing"
    if error["type"] != "extra_forbidden":
        given = f" (given: {error['input']!r})" if loc else ""  # the whole file says nothing
        return f"{where}: {error['msg'].removeprefix('Value error, ')}{given}"
    if where in RENAMED:
        return f"unknown field {where}: {RENAMED[where]}"
    allowed = _fields_at(loc[:-1])
    near = difflib.get_close_matches(loc[-1], allowed, n=3, cutoff=0.5) or sorted(allowed)
    return f"unknown field {where}; did you mean {', '.join(near)}?"


def _fields_at(loc: Sequence[str]) -> list[str]:
    section: type[BaseModel] = RunConfig
    for part in loc:
        if part in section.model_fields:
            kind = section.model_fields[part].annotation
            args = [a for a in get_args(kind) if isinstance(a, type) and issubclass(a, BaseModel)]
            section = args[0] if args else kind  # type: ignore[assignment]
    return list(section.model_fields)


def read_overlay(path: str) -> dict[str, object]:
    """The tables of an overlay file, local or a URI.

    Raises:
        UserError: no such file, or not TOML.
    """
    return parse_tables(read_text(path, what="overlay file"), name=path)
