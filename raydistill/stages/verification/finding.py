"""What `verify` finds: a file, what is wrong with it, what to do, and what a repair removes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa

from raydistill.errors import UserError
from raydistill.files.folder import SUCCESS, Folder
from raydistill.files.retry import StoreError

_T = TypeVar("_T")
_MOST_CHARS = 160  # of a library's message
# What our own code raises at content of another form.
_OF_CONTENT = (UserError, ValueError, KeyError, TypeError)
_MANY = 3  # files that are not named one by one
MISSING = "is missing"


@dataclass(frozen=True)
class Finding:
    """`file`, `removes`: paths below the run folder.

    `work` makes the removed files again: a stage or `label-<teacher>`, the name of its lease. It
    makes a missing file again by itself. Without `work` nothing is removed.
    """

    file: str
    what: str
    todo: str = ""
    removes: tuple[str, ...] = ()
    work: str = ""
    is_damage: bool = True  # False: something to know, such as a file that the run did not write

    def __str__(self) -> str:
        """One line: file, what is wrong, what to do."""
        return f"{self.file}: {self.what}{'; ' if self.todo else ''}{self.todo}"


def damage(file: str, what: str, *, work: str, removes: Iterable[str] = ()) -> Finding:
    """A damaged or missing file that a stage can make again."""
    gone, stage = tuple(dict.fromkeys(removes)), work.partition("-")[0]
    others = [name for name in gone if name != file]
    named = others if len(others) < _MANY else [f"{len(others)} files beside it"]
    taken = " and ".join([*(["it"] if file in gone else []), *named])
    way = f"--repair removes {taken}, then " if gone else ""
    way += f"`{stage}` makes {'them' if len(gone) > 1 else 'it'} again"
    return Finding(file, what, way, gone, work)


def note(file: str, what: str) -> Finding:
    """Something that is not damage."""
    return Finding(file, what, is_damage=False)


@dataclass
class Verified:
    """All findings, and a line on each part of the run."""

    findings: list[Finding] = field(default_factory=list)
    parts: dict[str, str] = field(default_factory=dict)  # "label minilm": "complete, 41 files"

    @property
    def damaged(self) -> list[Finding]:
        """The findings that are damage."""
        return [one for one in self.findings if one.is_damage]


@dataclass(frozen=True)
class Problem:
    """Why a file could not be read; `is_damage`: its content is wrong, a copy would be too."""

    text: str
    is_damage: bool = True

    def finding(self, file: str, *, work: str, removes: Iterable[str]) -> Finding:
        """The finding of a file: a file that cannot be read here for another reason stays."""
        if self.is_damage:
            return damage(file, self.text, work=work, removes=removes)
        return Finding(file, self.text, "let this user read it, and verify again")


def attempt(call: Callable[[], _T]) -> tuple[_T | None, Problem | None]:
    """The result of a read, or why it failed.

    Raises:
        StoreError: the object store failed, which says nothing about the file.
    """
    try:
        return call(), None
    except StoreError:
        raise
    except FileNotFoundError:
        return None, Problem(MISSING)
    except (pa.ArrowException, OSError, zipfile.BadZipFile, *_OF_CONTENT) as error:
        # Arrow's errors about a file's content have no errno, unlike those of the system.
        is_damage = not (isinstance(error, OSError) and error.errno is not None)
        return None, Problem(shortened(error), is_damage)


def shortened(error: Exception) -> str:
    """The first words of an error."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]} ..."


def read_object(folder: Folder, name: str) -> tuple[dict[str, Any] | None, Problem | None]:
    """The JSON object in a file, or why there is none; (None, None): there is no such file."""
    content, problem = attempt(lambda: json.loads(folder.read_bytes(name)))
    if problem is not None and problem.text == MISSING:
        return None, None
    if problem is None and not isinstance(content, dict):
        return None, Problem(f"holds a JSON {type(content).__name__}, not an object")
    return content, Problem(f"is no JSON ({problem.text})", problem.is_damage) if problem else None


def read_done(
    folder: Folder, *, path: str, work: str, needs: Iterable[str]
) -> tuple[dict[str, Any] | None, Iterator[Finding]]:
    """The _SUCCESS.json of `folder` with all fields of `needs`; None with findings if it is not so.

    `path`: of the folder below the run folder.
    """
    done, problem = read_object(folder, SUCCESS)
    file = f"{path}/{SUCCESS}"
    if problem is None and done is not None:
        lacking = [name for name in needs if name not in done]
        problem = Problem(f"lacks {', '.join(lacking)}") if lacking else None
    if problem is not None:
        return None, iter([problem.finding(file, work=work, removes=[file])])
    return done, iter(())
