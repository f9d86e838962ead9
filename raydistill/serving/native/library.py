"""The native library in Python: maps a model file, checks it, scores pairs.

Imports NumPy and ctypes only, so a process scores milliseconds after its start. The functions and
their memory are documented in `raydistill.h`; one more, for Python's own strings, in
`python_calls.py`.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import threading
from array import array
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.serving.native.layout import (
    ALIGN,
    ARGUMENT,
    BROKEN,
    CUT_SHORT,
    DAMAGED,
    MODEL_FORMAT,
    NO_MODEL,
    OK,
    OTHER_FORMAT,
    describe,
)
from raydistill.serving.native.python_calls import NAME as PYTHON
from raydistill.serving.native.python_calls import (
    StringScorer,
    StringScorers,
    is_possible,
    no_scores,
)

Texts = tuple[NDArray[np.uint8], NDArray[np.int32] | NDArray[np.int64]]  # as arrow_text.Texts
_P, _I = ctypes.c_void_p, ctypes.c_int64
_FUNCTIONS = {  # the types of their arguments; all return int64
    "rd_format": (),
    "rd_check": (_P, _I),
    "rd_verify": (_P, _I),
    "rd_scratch_bytes": (_P,),
    "rd_score": (_P, _P, _P, _I, _P, _P, _I, _P),
    "rd_score_pairs": (_P, _P, _P, _P, _P, _P, _I, _P),
    "rd_clean": (_P, _P, _P, _I, _I, _P, _I),
}
# Otherwise a forked process would write to the memory of its parent.
_PRIVATE: dict[str, int] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if sys.platform != "win32" else {}
)
_OBJECT_MAGIC = (b"\x7fELF", b"\xcf\xfa\xed\xfe")  # of Linux and macOS
_REASONS = {
    NO_MODEL: "it is no model file",
    OTHER_FORMAT: f"it is for another version; this library reads version {MODEL_FORMAT}",
    CUT_SHORT: "it is not complete",
    BROKEN: "a number in it is out of range",
    DAMAGED: "its checksum differs",
    ARGUMENT: "its memory is not aligned",
}


class Library:
    """The functions of a shared library, or of an object that llvmlite loads into this process.

    Calls release the GIL.
    """

    def __init__(self, file: Path) -> None:
        """Load a `.so`, `.dylib` or `.dll`; or a `.o`, which needs llvmlite.

        Raises:
            UserError: the file cannot be loaded, or reads another version of model files.
        """
        self.file = file
        try:
            self._engine, self._functions, self.python = _loaded(file)
        except (OSError, AttributeError, RuntimeError, ImportError) as error:
            raise UserError(f"{file} cannot be loaded as the native library: {error}") from error
        if self["rd_format"]() != MODEL_FORMAT:
            raise UserError(f"{file} reads other model files than version {MODEL_FORMAT}")

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - a function of ctypes
        """A function by its name in `raydistill.h`."""
        return self._functions[name]

    def string_scorers(self, *, model: int, scratch: int) -> StringScorers | None:
        """Functions of Python for a model and the scratch memory of a thread; None: none here."""
        if not self.python or not is_possible():
            return None
        return StringScorers(self.python, model=model, scratch=scratch)

    def check(self, model: NDArray[np.uint8], *, whole: bool = False) -> int:
        """The code of `rd_check`, or with `whole` of `rd_verify`."""
        return int(self["rd_verify" if whole else "rd_check"](model.ctypes.data, len(model)))


class Model:
    """A mapped model file and the library that scores with it; thread-safe."""

    def __init__(self, model: NDArray[np.uint8], library: Library) -> None:
        """`model`: the bytes of a model file, as `layout.read_model` maps them.

        Raises:
            UserError: the library does not accept the model.
        """
        if code := library.check(model):
            raise UserError(
                f"the model cannot be used: {_REASONS.get(code, f'code {code}')}; export it again"
            )
        self.header = describe(model)
        self._model, self._library = model, library
        self._address, self._threads = model.ctypes.data, threading.local()
        self._score, self._score_pairs = library["rd_score"], library["rd_score_pairs"]
        self._scratch_bytes = library["rd_scratch_bytes"](self._address)

    def score_strings(self, query: object, titles: object) -> NDArray[np.float32] | None:
        """As `score`, without copies of the texts; None unless they are a list or tuple of strings.

        The strings keep their UTF-8 as long as they live, which takes memory if they are not ASCII.
        """
        own = self._thread()
        scores = own.score(query, titles)
        return None if scores is None else np.frombuffer(scores, np.float32)

    def score_string_pairs(self, queries: object, titles: object) -> NDArray[np.float32] | None:
        """As `score_pairs`, otherwise as `score_strings`; None too for sides of other lengths."""
        own = self._thread()
        scores = own.score_pairs(queries, titles)
        return None if scores is None else np.frombuffer(scores, np.float32)

    def score(self, query: str, titles: Sequence[str]) -> NDArray[np.float32]:
        """Scores in 0..1 of one query's titles, raw texts, in the order given."""
        own, asked = self._thread(), query.encode("utf-8", "replace")
        texts, offsets = _joined(titles)
        num = len(offsets) - 1
        scores = array("f", bytes(4 * num))
        code = self._score(
            *(self._address, own.scratch, asked, len(asked), texts),
            *(offsets.buffer_info()[0], num, scores.buffer_info()[0]),
        )
        return _scored(code, scores)

    def score_pairs(self, queries: Sequence[str], titles: Sequence[str]) -> NDArray[np.float32]:
        """Scores in 0..1 of pairs of raw texts, in the order given.

        Raises:
            ValueError: the sides differ in length.
        """
        own, (asked, query_offsets) = self._thread(), _joined(queries)
        texts, offsets = _joined(titles)
        num = len(offsets) - 1
        if len(query_offsets) != len(offsets):
            raise ValueError(f"{len(query_offsets) - 1} queries for {num} titles")
        scores = array("f", bytes(4 * num))
        code = self._score_pairs(
            *(self._address, own.scratch, asked, query_offsets.buffer_info()[0], texts),
            *(offsets.buffer_info()[0], num, scores.buffer_info()[0]),
        )
        return _scored(code, scores)

    def score_texts(self, queries: Texts, titles: Texts) -> NDArray[np.float32]:
        """Scores in 0..1 of pairs of raw texts: UTF-8 bytes, and R + 1 offsets that do not fall."""
        (asked, query_offsets), (texts, offsets) = _as_int64(queries), _as_int64(titles)
        own, scores = self._thread(), np.empty(len(offsets) - 1, np.float32)
        code = self._score_pairs(
            *(self._address, own.scratch, asked.ctypes.data, query_offsets.ctypes.data),
            *(texts.ctypes.data, offsets.ctypes.data, len(scores), scores.ctypes.data),
        )
        return _scored(code, scores)

    def clean(self, text: str | bytes, *, is_query: bool = False) -> str:
        """A text as the model reads it."""
        raw = text.encode("utf-8", "replace") if isinstance(text, str) else text
        own = self._thread()
        out = np.empty(4 * self.header["max_query" if is_query else "max_title"], np.uint8)
        num = self._library["rd_clean"](
            *(self._address, own.scratch, raw, len(raw), int(is_query)),
            *(out.ctypes.data, len(out)),
        )
        return out[:num].tobytes().decode()

    def _thread(self) -> _Thread:
        """What this thread scores with, made once."""
        try:
            own: _Thread = self._threads.own
        except AttributeError:
            own = self._threads.own = _Thread(self._library, self._address, self._scratch_bytes)
        return own


class _Thread:
    """The scratch memory of a thread, and its functions of Python, which use it.

    Each call keeps it in a variable: where Python ends, it clears what is local to a daemon thread,
    which may still be scoring.
    """

    __slots__ = ("_memory", "_scorers", "score", "score_pairs", "scratch")

    def __init__(self, library: Library, model: int, scratch_bytes: int) -> None:
        # Pages that are never touched take no memory. A mapping starts at a page.
        self._memory = mmap.mmap(-1, max(scratch_bytes, ALIGN), **_PRIVATE)
        self.scratch = ctypes.addressof((ctypes.c_char * 1).from_buffer(self._memory))
        # The functions must not outlive it.
        self._scorers = made = library.string_scorers(model=model, scratch=self.scratch)
        self.score: StringScorer = made.score if made else no_scores
        self.score_pairs: StringScorer = made.score_pairs if made else no_scores


def _loaded(file: Path) -> tuple[object, dict[str, Any], int]:
    """What must live as long as the functions, the functions, and the address of Python's or 0."""
    if file.suffix == ".o":
        return _loaded_object(file)
    library = ctypes.CDLL(str(file))
    functions = {name: getattr(library, name) for name in _FUNCTIONS}
    for name, types in _FUNCTIONS.items():
        functions[name].argtypes, functions[name].restype = types, _I
    python = getattr(library, PYTHON, None)  # a library with checks has none
    return library, functions, ctypes.cast(python, _P).value or 0 if python else 0


def _loaded_object(file: Path) -> tuple[object, dict[str, Any], int]:
    """An object in this process, where no linker made a library of it."""
    import llvmlite.binding as llvm  # imported here: a library needs no llvmlite

    data = file.read_bytes()
    if not data.startswith(_OBJECT_MAGIC):  # LLVM would crash
        raise OSError("no object file")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.object_file.ObjectFileRef.from_data(data))
    engine.finalize_object()
    functions = {}
    for name, types in _FUNCTIONS.items():
        address = engine.get_function_address(name)
        if not address:
            raise OSError(f"no function {name}")
        functions[name] = ctypes.CFUNCTYPE(_I, *types)(address)
    return engine, functions, engine.get_function_address(PYTHON)


def _joined(texts: Sequence[str]) -> tuple[bytes, array[int]]:
    """UTF-8 bytes of texts one after another, and their offsets.

    Arrays of the standard library: for one pair NumPy's take 4 us longer, as long as its score.
    """
    try:
        parts = [*map(str.encode, texts)]  # a fifth faster than with arguments
    except UnicodeEncodeError:
        parts = [text.encode("utf-8", "replace") for text in texts]
    if len(parts) == 1:
        return parts[0], array("q", (0, len(parts[0])))
    return b"".join(parts), array("q", [0, *accumulate(map(len, parts))])


def _as_int64(texts: Texts) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    data, offsets = texts
    return data, np.ascontiguousarray(offsets, np.int64)


def _scored(code: int, scores: array[float] | NDArray[np.float32]) -> NDArray[np.float32]:
    if code != OK:
        raise RuntimeError(f"the native library returned {code}: see raydistill.h")
    return np.frombuffer(scores, np.float32)
