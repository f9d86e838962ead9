"""docs/configuration.md, generated from the models of the run file.

`python -m raydistill.config.reference > docs/configuration.md` writes the page.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
import textwrap
import types
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from raydistill.config.base import ConfigSection
from raydistill.config.cluster import ClusterConfig
from raydistill.config.data import (
    CsvConfig,
    InputConfig,
    JudgedConfig,
    OtherLabelsConfig,
    PairsConfig,
)
from raydistill.config.evaluation import EvaluateConfig, PricesConfig, SpaceConfig, TuneConfig
from raydistill.config.run_config import RunConfig
from raydistill.config.student import (
    HIDDEN,
    TABLE_RATE,
    TARGET,
    ExportConfig,
    NgramsConfig,
    SoftLabelsConfig,
    StudentConfig,
    TrainConfig,
)
from raydistill.config.teachers import FinetuneConfig, LabelConfig, TeacherConfig, TreesConfig

# The tables of the run file, in the order of the page: heading, model, what the table is.
SECTIONS: tuple[tuple[str, type[ConfigSection], str], ...] = (
    ("The run file", RunConfig, "The top level: `run_dir` and the tables below."),
    ("[pairs]", PairsConfig, "The transfer set: unlabeled pairs. Required."),
    ("[judged]", JudgedConfig, "Pairs with human labels; may be left out."),
    (
        "[[pairs.input]] and [[judged.input]]",
        InputConfig,
        "One input as a table. A setting that is not given is that of `[pairs]` or `[judged]`.",
    ),
    (
        "[judged.other]",
        OtherLabelsConfig,
        "A second source of labels of the judged test pairs, matched by query and title.",
    ),
    ("csv", CsvConfig, "`csv = { ... }` of `[pairs]`, `[judged]` or one input: delimited text."),
    ("[teachers.NAME]", TeacherConfig, "One teacher; at least one is required."),
    ("[trees]", TreesConfig, "Boosted trees on the match features, a teacher of their own."),
    ("[finetune]", FinetuneConfig, "How a `base` encoder becomes a cross-encoder."),
    ("[label]", LabelConfig, "How the teachers score pairs."),
    (
        "[soft_labels]",
        SoftLabelsConfig,
        "The soft label is sigmoid((sum of w_m z_m + bias) / temperature).",
    ),
    ("[ngrams]", NgramsConfig, "How text becomes n-gram ids and match features."),
    ("[student]", StudentConfig, "The network."),
    ("[train]", TrainConfig, "How the student and the baseline are fitted."),
    ("[export]", ExportConfig, "How the student becomes a bundle."),
    ("[tune]", TuneConfig, "How settings are searched."),
    ("[tune.space]", SpaceConfig, "The values of one searched setting: exactly one of the forms."),
    ("[evaluate]", EvaluateConfig, "How the report is measured."),
    ("[cluster]", ClusterConfig, "The Ray cluster."),
    ("[cluster.prices]", PricesConfig, "What an hour costs, for the report's table of costs."),
)
_INTRO = """# Configuration

<!-- Generated: `python -m raydistill.config.reference > docs/configuration.md`. Do not edit. -->

A run is one TOML file. `--overlay FILE.TOML` puts a file of settings over it and
`--set section.field=value` a single one; `--set` has priority. An unknown field ends the command
and names its nearest neighbours. `raydistill distill --config run.toml --dry-run` prints the
settings with their defaults.

The column *changes results* says whether a setting is part of a fingerprint. If it is, another
value gives another output folder, and the stages that depend on it run again. Other values of
`[pairs]` and `[judged]` need another `run_dir`, but for `relevant_at`; further files in `input` do
not. If the column says no, the setting changes speed, placement or limits only, and complete
outputs stay valid.
"""
_PRESETS = """## Presets

Settings without a value here take the value of `ngrams.preset`:

"""
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_WORDS = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`"}


def configuration_markdown() -> str:
    """The page: a section for each table of the run file, a row for each field."""
    parts = [_INTRO]
    for heading, model, text in SECTIONS:
        parts.append(f"## {_heading(heading)}\n\n{text}\n\n{_table(model)}\n")
    return "\n".join([*parts, _PRESETS + _presets()])


def _heading(text: str) -> str:
    return f"`{text}`" if text.startswith("[") and " " not in text else text


def _table(model: type[ConfigSection]) -> str:
    rows = ["| field | value | default | meaning | changes results |", "|---|---|---|---|---|"]
    texts = meanings(model)
    for name, field in model.model_fields.items():
        cells = (f"`{name}`", _value(field), _default(field), texts[name], _effect(model, name))
        rows.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def meanings(model: type[ConfigSection]) -> dict[str, str]:
    """The docstring under each field of a model and of its bases; "" where there is none.

    Read here and not by pydantic (`use_attribute_docstrings`), which would parse the source at each
    import: 0.2 s of each process.
    """
    found = dict.fromkeys(model.model_fields, "")
    for base in reversed(model.__mro__):
        if issubclass(base, ConfigSection):
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
            found |= dict(_docstrings(tree.body)) if isinstance(tree, ast.ClassDef) else {}
    return {name: found[name] for name in model.model_fields}


def _docstrings(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    """Each annotated name with the string that follows it."""
    for statement, after in pairwise(body):
        match statement, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, text


def _effect(model: type[ConfigSection], name: str) -> str:
    is_left_out = name in model.RUNTIME_ONLY and name not in model.FINGERPRINTED_ELSEWHERE
    return "no" if is_left_out else "yes"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "" if value is None or isinstance(value, ConfigSection) else f"`{json.dumps(value)}`"


def _value(field: FieldInfo) -> str:
    kind: Any = field.annotation
    return ", ".join(dict.fromkeys([*_kinds(kind), *_bounds(field.metadata)]))


def _kinds(kind: Any) -> Iterator[str]:  # noqa: ANN401 - annotations have no common type
    """The words for a type, one for each alternative; None is left out, as TOML has no null."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        yield " ".join([*_kinds(args[0]), *_bounds(args[1:])])
    elif origin in (Union, types.UnionType):
        words = [word for one in args if one is not type(None) for word in _kinds(one)]
        yield " or ".join(["number"] if words == ["whole number", "number"] else words)
    elif origin is Literal:
        yield " or ".join(f"`{json.dumps(value)}`" for value in args)
    elif origin is tuple:
        yield from _tuple_words(args)
    elif origin is dict:
        yield f"table of {_plural(args[1])}"
    elif isinstance(kind, type) and issubclass(kind, ConfigSection):
        yield "table"
    else:
        yield _WORDS.get(kind, "any value")


def _tuple_words(args: tuple[Any, ...]) -> Iterator[str]:
    if args[-1] is not Ellipsis:
        yield f"list of {len(args)} numbers"
    elif isinstance(args[0], type) and issubclass(args[0], ConfigSection):
        yield "text, or list of texts and tables"
    else:
        yield f"list of {_plural(args[0])}"


def _plural(kind: Any) -> str:  # noqa: ANN401
    if get_origin(kind) is Annotated:
        inner, *rules = get_args(kind)
        return " ".join([_plural(inner), *_bounds(rules)])
    words = " or ".join(_kinds(kind))
    return {"any value": "values", "text": "texts"}.get(words, f"{words}s")


def _bounds(metadata: Any) -> list[str]:  # noqa: ANN401 - pydantic's own list
    """`at least 1, at most 26`, as the constraints of a field or a type say."""
    found = []
    for rule in metadata:
        if isinstance(rule, FieldInfo):
            found += _bounds(rule.metadata)
        for name, words in _BOUNDS.items():
            limit = getattr(rule, name, None)
            if limit is not None:
                found.append(f"{words} {limit:g}")
    return found


def _presets() -> str:
    rows = ["| field | `match` | `bert2dnn` |", "|---|---|---|"]
    for name, values in (
        ("student.hidden", HIDDEN),
        ("train.target", TARGET),
        ("train.table_learning_rate", TABLE_RATE),
    ):
        cells = [
            "that of `train.learning_rate`"
            if values[preset] is None
            else f"`{json.dumps(values[preset])}`"
            for preset in ("match", "bert2dnn")
        ]
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(configuration_markdown())
