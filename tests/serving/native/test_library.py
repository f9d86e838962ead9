import ctypes
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from raydistill.errors import UserError
from raydistill.serving.native import layout
from raydistill.serving.native.build import own_target
from raydistill.serving.native.layout import ARGUMENT, FAILED, OBJECT, OK, aligned, read_model
from raydistill.serving.native.library import Library, Model
from raydistill.serving.native.python_calls import NAME as PYTHON
from tests.serving.native.cases import (
    EXTREME,
    MAX_TITLE_CHARS,
    default_model,
    odd_pairs,
    small_model,
)

pytestmark = pytest.mark.timeout(900)  # where the library is not in the cache
ROOT = Path(__file__).parents[3]


def test_a_pair_alone_has_the_same_bits_as_in_a_batch(model: Model) -> None:
    queries, titles = zip(*odd_pairs(200), *EXTREME, strict=True)
    together = model.score_pairs(queries, titles)
    alone = [model.score(query, [title])[0] for query, title in zip(queries, titles, strict=True)]
    assert together.tolist() == alone
    of_one = model.score(queries[0], titles)
    assert model.score_pairs([queries[0]] * len(titles), titles).tolist() == of_one.tolist()
    assert model.score("a", []).shape == (0,)


def test_threads_share_a_model(model: Model) -> None:
    queries, titles = zip(*odd_pairs(100), strict=True)
    expected = model.score_pairs(queries, titles).tolist()
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: model.score_pairs(queries, titles), range(40)):
            assert found.tolist() == expected


def test_a_long_text_is_read_up_to_its_window(model: Model) -> None:
    words = "sofa " * 10
    for long in (words * 100_000, "é" * 1_000_000, "&amp;" * 300_000, "\ufdfa" * 200_000):
        window = long.encode()[: 16 * MAX_TITLE_CHARS + 4_096].decode("utf-8", "ignore")
        assert model.score("sofa", [long]) == model.score("sofa", [window])


@pytest.mark.parametrize("data", [default_model, small_model])
def test_scratch_memory_may_have_any_content(data: Callable[[], bytes], library: Library) -> None:
    """Callers in other languages do not clear it."""
    model = Model(aligned(data()), library)
    pairs, scratch = (*odd_pairs(20), *EXTREME), model._thread().scratch
    expected = [model.score(query, [title])[0] for query, title in pairs]
    for byte in (0x00, 0x01, 0x7F, 0xFF):  # 0xFF: each float32 is NaN
        for (query, title), score in zip(pairs, expected, strict=True):
            ctypes.memset(scratch, byte, model._scratch_bytes)
            assert model.score(query, [title])[0] == score


def test_false_arguments_are_refused(model: Model, library: Library) -> None:
    address, scratch = model._address, model._thread().scratch
    scores = np.full(2, 7, np.float32)
    for offsets, num, size in (([0, 3, 1], 2, 1), ([-1, 0, 1], 2, 1), ([0, 1, 1], -1, 1),
                               ([0, 1, 1], 2, -1)):  # fmt: skip
        starts = np.array(offsets)
        code = library["rd_score"](
            address, scratch, b"a", size, b"abc", starts.ctypes.data, num, scores.ctypes.data
        )
        assert code == ARGUMENT and (scores == 7).all()
    fine, falling = np.array([0, 1, 1]), np.array([0, 1, 0])
    for queries, titles in ((falling, fine), (fine, falling)):
        code = library["rd_score_pairs"](
            *(address, scratch, b"abc", queries.ctypes.data, b"abc", titles.ctypes.data),
            *(2, scores.ctypes.data),
        )
        assert code == ARGUMENT and (scores == 7).all()
    starts = fine.ctypes.data
    right = [address, scratch, b"a", 1, b"abc", starts, 1, scores.ctypes.data]
    for at in (0, 1, 2, 4, 5, 7):
        false = [None if place == at else value for place, value in enumerate(right)]
        assert library["rd_score"](*false) == ARGUMENT
    assert library["rd_score"](*right[:1], scratch + 8, *right[2:]) == ARGUMENT
    assert library["rd_score"](*right) == OK
    pairs = (address, scratch, None, starts, b"abc", starts, 1, scores.ctypes.data)
    assert library["rd_score_pairs"](*pairs) == ARGUMENT
    for text, out in ((None, scores.ctypes.data), (b"a", None)):
        assert library["rd_clean"](address, scratch, text, 1, 0, out, 8) == FAILED
    assert library["rd_check"](address + 8, 5_000) == library["rd_check"](0, 5_000) == ARGUMENT


def test_the_library_needs_two_functions_of_libm_only(library: Library) -> None:
    if shutil.which("nm") is None:
        pytest.skip("no nm on this machine")
    file = library.file.with_name(OBJECT.format(own_target()))
    found = subprocess.run(["nm", "-u", file], capture_output=True, text=True, check=True).stdout
    assert set(found.replace(" U ", "").split()) <= {"expf", "log1p"}


def test_the_library_offers_the_functions_of_its_header(library: Library) -> None:
    if shutil.which("nm") is None or library.file.suffix == ".o":
        pytest.skip("no nm, or no linker, on this machine")
    command = ["nm", "-D", "--defined-only", library.file]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    header = Path(layout.__file__).with_name("raydistill.h").read_text()
    declared = re.findall(r"^int64_t (rd_\w+)\(", header, re.MULTILINE)
    assert set(found[2::3]) == {*declared, PYTHON}


def test_the_header_names_the_codes_of_the_layout() -> None:
    header = Path(layout.__file__).with_name("raydistill.h").read_text()
    codes = dict(re.findall(r"RD_(\w+) = (-?\d+)", header))
    assert len(codes) == 8
    assert {name: int(code) for name, code in codes.items()} == {
        name: getattr(layout, name) for name in codes
    }


_BY_OBJECT = """
import sys
from pathlib import Path
from raydistill.serving.native.library import Library, Model
from tests.serving.native.cases import default_model, odd_pairs
from raydistill.serving.native.layout import aligned

queries, titles = zip(*odd_pairs(50), strict=True)
model = Model(aligned(default_model()), Library(Path(sys.argv[1])))
print(model.score_pairs(queries, titles).tolist())
print(model.score_string_pairs(queries, titles).tolist())
"""


def test_an_object_is_loaded_where_there_is_no_linker(library: Library, model: Model) -> None:
    """In a process of its own: LLVM wants code and constants within 2 GiB, and ends it if not."""
    file = library.file.with_name(OBJECT.format(own_target()))
    queries, titles = zip(*odd_pairs(50), strict=True)
    command = [sys.executable, "-c", _BY_OBJECT, str(file)]
    by_object = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    by_bytes, by_strings = map(json.loads, by_object.splitlines())
    assert by_bytes == by_strings == model.score_pairs(queries, titles).tolist()


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    for name in ("x.so", "x.o"):
        (tmp_path / name).write_bytes(b"no library")
        with pytest.raises(UserError, match="cannot be loaded"):
            Library(tmp_path / name)


def test_scoring_needs_numpy_and_no_numba(library: Library, tmp_path: Path) -> None:
    (tmp_path / "model.rdm").write_bytes(default_model())
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from raydistill.serving.native.layout import read_model\n"
        "from raydistill.serving.native.library import Library, Model\n"
        "model = Model(read_model(Path(sys.argv[2])), Library(Path(sys.argv[1])))\n"
        "print(model.score('grey sofa', ['Sofa, grey'])[0])\n"
        "ours = {name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names\n"
        "print(*sorted(ours))"
    )
    command = [sys.executable, "-c", code, str(library.file), str(tmp_path / "model.rdm")]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    assert 0 < float(lines[0]) < 1
    assert "numpy" in lines[1] and not {"numba", "llvmlite"} & set(lines[1].split())


def test_a_forked_process_has_its_own_memory(library: Library, tmp_path: Path) -> None:
    (tmp_path / "model.rdm").write_bytes(default_model())
    code = (
        "import ctypes, os, sys\nfrom pathlib import Path\n"
        "from raydistill.serving.native.layout import read_model\n"
        "from raydistill.serving.native.library import Library, Model\n"
        "model = Model(read_model(Path(sys.argv[2])), Library(Path(sys.argv[1])))\n"
        "model.score('grey sofa', ['Sofa, grey'])\n"
        "memory = (ctypes.c_char * 4096).from_address(model._thread().scratch)\n"
        "before = memory.raw\n"
        "if os.fork() == 0:\n"
        "    model.score('another query of four words', ['a longer title'])\n"
        "    os._exit(memory.raw == before)\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]), memory.raw == before)"
    )
    command = [sys.executable, "-c", code, str(library.file), str(tmp_path / "model.rdm")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "True"]


def test_a_model_is_checked_when_it_is_mapped(library: Library, tmp_path: Path) -> None:
    file = tmp_path / "model.rdm"
    file.write_bytes(default_model())
    model = Model(read_model(file), library)
    assert library.check(model._model, whole=True) == OK
    assert model.score("sofa", ["sofa"]).shape == (1,) and library.check(model._model) == OK
    file.write_bytes(default_model()[:-64])
    with pytest.raises(UserError, match="not complete"):
        Model(read_model(file), library)
    with pytest.raises(UserError, match="cannot be read"):
        read_model(tmp_path / "none.rdm")
