"""The documentation: its links, run files, commands and setting names are valid."""

import argparse
import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raydistill.cli.main import _parser
from raydistill.config.base import ConfigSection
from raydistill.config.loading import to_config
from raydistill.config.reference import SECTIONS
from raydistill.config.run_config import RunConfig
from raydistill.errors import UserError

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md")])
DOCS = {
    *("index", "concepts", "quickstart", "configuration", "operations", "labeling", "training"),
    *("tuning", "features", "results", "architecture", "troubleshooting", "contributing"),
    *(
        "glossary",
        "evaluation",
        "comparing",
        "explaining",
        "metrics",
        "planning",
        "cluster",
        "serving",
    ),
}
# They say what was, so they name settings and files that are gone.
HISTORY = {"CHANGELOG.md", "results.md"}
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_MAX_CHARS = 110
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def _prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text())


def _blocks(page: Path, *languages: str) -> Iterator[str]:
    for indent, language, text in _FENCE.findall(page.read_text()):
        if language in languages:
            yield "".join(line.removeprefix(indent) for line in text.splitlines(keepends=True))


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_the_pages_are_those_of_the_map() -> None:
    assert {page.stem for page in ROOT.glob("docs/*.md")} == DOCS
    linked = set(_LINK.findall(_prose(ROOT / "docs/index.md")))
    assert {f"{name}.md" for name in DOCS - {"index"}} <= linked


@each_page
def test_every_internal_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in _LINK.findall(_prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        is_there = target.is_file() or (target.is_dir() and not anchor)
        if not is_there or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


@each_page
def test_lines_are_short(page: Path) -> None:
    """Rows of tables cannot be wrapped, nor can a line that is one word."""
    lines = [
        line
        for line in page.read_text().splitlines()
        if len(line) > _MAX_CHARS and not line.lstrip().startswith("|") and " " in line.strip()
    ]
    assert lines == []


@each_page
def test_no_page_speaks_in_metaphors(page: Path) -> None:
    """Texts of shops are in code: "front door of a house" is what a title may say."""
    text = re.sub(r"`[^`]*`", "", _prose(page))
    assert re.findall(r"(?i)\b(?:houses?|rooms?|floors?|ledgers?)\b", text) == []


# --- run files

_NEEDED = {
    "run_dir": "runs/x",
    "pairs": {"input": "pairs.parquet"},
    "judged": {"input": "judged.parquet"},
    "teachers": {"x": {"base": "encoder"}},
}


def _completed(raw: dict[str, Any]) -> dict[str, Any]:
    """A part of a run file with what every run file needs."""
    whole = {**_NEEDED, **raw}
    for name in ("pairs", "judged"):
        whole[name] = {**_NEEDED[name], **raw.get(name, {})}  # type: ignore[dict-item]
    return whole


@each_page
def test_every_run_file_is_valid(page: Path) -> None:
    for text in _blocks(page, "toml"):
        assert to_config(_completed(tomllib.loads(text)), name=f"{page.name}: {text}")


def test_the_check_of_run_files_can_fail() -> None:
    with pytest.raises(UserError, match="tempersture"):
        to_config(_completed({"soft_labels": {"tempersture": 2}}), name="a page")


# --- commands


class _Refused(Exception):
    """What argparse says of a command."""


def _refuse(self: argparse.ArgumentParser, message: str) -> None:
    raise _Refused(message)


def _is_accepted(command: list[str], *, is_whole: bool) -> bool:
    """Whether argparse takes a command; within a sentence some arguments may be left out."""
    try:
        return bool(_parser().parse_args(command))
    except _Refused as refused:
        return not is_whole and "arguments are required" in str(refused)


def _commands(text: str) -> Iterator[list[str]]:
    for line in text.replace("\\\n", " ").splitlines():
        if "raydistill " not in line and "jobs.distill" not in line:
            continue
        words = shlex.split(line, comments=True)
        if words[:1] == ["raydistill"]:
            yield words[1:]
        if "jobs.distill" in words:
            yield ["distill", *words[words.index("jobs.distill") + 1 :]]


@each_page
def test_every_command_is_accepted(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(argparse.ArgumentParser, "error", _refuse)
    code = re.findall(r"`(raydistill [^`]*)`", _prose(page).replace("\n", " "))
    parts = [line for line in code if "--" in line and "…" not in line and "..." not in line]
    for texts, is_whole in ((_blocks(page, ""), True), (parts, False)):
        for command in (command for text in texts for command in _commands(text)):
            assert _is_accepted(command, is_whole=is_whole), command


@each_page
def test_every_named_command_exists(page: Path) -> None:
    (commands,) = (
        action.choices
        for action in _parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    named = re.findall(r"`raydistill (\w+)", _prose(page))
    assert set(named) - set(commands) == set()


@each_page
def test_every_script_and_job_exists(page: Path) -> None:
    text = page.read_text()
    files = re.findall(r"(?:python|pytest) ((?:tests|jobs)/[\w/]+\.py)", text)
    files += re.findall(r"`((?:raydistill|tests|jobs)/[\w/]+\.(?:py|toml))`", text)
    files += [f"{name.replace('.', '/')}.py" for name in re.findall(r"-m (jobs\.\w+)", text)]
    assert {name for name in files if not (ROOT / name).is_file()} == set()


@each_page
def test_python_is_valid(page: Path) -> None:
    for text in _blocks(page, "python"):
        compile(text, page.name, "exec")
        for module, names in re.findall(r"^from (raydistill[\w.]*) import ([\w, ]+)", text, re.M):
            found = __import__(module, fromlist=["x"])
            assert all(hasattr(found, name.strip()) for name in names.split("#")[0].split(","))


# --- messages


def _messages() -> Iterator[str]:
    """Every string of the code, with a line break at each placeholder and each value."""
    for file in ROOT.glob("raydistill/**/*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            yield "\n".join(
                re.sub(r"%[sdr]|%\.\df|%g|`", "\n", part.value)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
                else ""
                for part in parts
            )


@pytest.mark.slow
def test_every_symptom_is_a_message_of_the_code() -> None:
    """In docs/troubleshooting.md `...` stands for a value."""
    page = (ROOT / "docs/troubleshooting.md").read_text()
    symptoms = [row.split(" | ")[0] for row in page.splitlines() if row.startswith("| ")]
    quoted = [text for symptom in symptoms for text in re.findall(r"`([^`]+)`", symptom)]
    code = "\n".join(_messages())
    fragments = [part.strip(" :;,.") for text in quoted for part in text.split("...")]
    assert len(quoted) > 50
    assert [part for part in fragments if part not in code] == []


# --- settings

_SUFFIXES = {"json", "md", "npz", "parquet", "pt", "py", "svg", "toml", "yaml"}
_TABLES: dict[str, type[ConfigSection]] = {
    heading.strip("[]"): model
    for heading, model, _ in SECTIONS
    if re.fullmatch(r"\[\w+\]", heading)
}


@each_page
def test_every_named_setting_exists(page: Path) -> None:
    if page.name in HISTORY:
        return
    unknown = []
    for table, field in re.findall(r"`\"?([a-z_]+)\.([a-z_]+)\b(?!\.|\()", _prose(page)):
        model = _TABLES.get(table)
        is_file = field in _SUFFIXES
        if model is not None and field not in model.model_fields and not is_file:
            unknown.append(f"{table}.{field}")
    assert unknown == []


@each_page
def test_every_named_table_exists(page: Path) -> None:
    if page.name in HISTORY:
        return
    named = re.findall(r"`\[([a-z_]+)[\].]", _prose(page))
    assert set(named) - set(RunConfig.model_fields) <= {"labels"}  # troubleshooting names the old
