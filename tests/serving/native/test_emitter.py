import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from raydistill.serving.native.build import OBJECT
from raydistill.serving.native.emit import emitter
from raydistill.serving.native.emit.model_file import model_bytes
from raydistill.serving.native.layout import aligned
from raydistill.serving.native.library import Library, Model
from tests.bindings.golden import lines_of
from tests.serving.native.cases import default_model, odd_pairs, random_bundle

pytestmark = pytest.mark.timeout(900)  # where the library is not in the cache
ROOT = Path(__file__).parents[3]
MODULE = """
target triple = "unknown"
define i64 @rd_format() {
  ret i64 7
}
"""
CLEARING = """
target triple = "unknown"
define void @clear(ptr %out, i64 %num) {
entry:
  br label %loop
loop:
  %at = phi i64 [ 0, %entry ], [ %next, %loop ]
  %place = getelementptr float, ptr %out, i64 %at
  store float 0.0, ptr %place
  %next = add i64 %at, 1
  %more = icmp slt i64 %next, %num
  br i1 %more, label %loop, label %end
end:
  ret void
}
"""
FORMATS = {"linux": b"\x7fELF", "macos": b"\xcf\xfa\xed\xfe", "windows": b"\x64\x86"}


@pytest.mark.parametrize("name", emitter.TARGETS)
def test_an_object_has_the_format_of_its_target(name: str) -> None:
    data = emitter.object_of(MODULE, emitter.TARGETS[name])
    assert data.startswith(FORMATS[name.split("-")[0]]) and b"rd_format" in data


@pytest.mark.parametrize("name", emitter.TARGETS)
def test_a_loop_that_clears_memory_calls_nothing(name: str) -> None:
    data = emitter.object_of(CLEARING, emitter.TARGETS[name])
    assert b"clear" in data and b"memset" not in data and b"bzero" not in data


@pytest.mark.parametrize("linker", ["ld.lld", "ld"])
def test_each_linker_makes_a_library(
    library: Library, target: str, model: Model, linker: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if shutil.which(linker) is None or platform.system() != "Linux":
        pytest.skip(f"no {linker} on this machine")
    monkeypatch.setattr(emitter, "_LINKERS", ("no-linker", linker))
    object_file, file = library.file.with_name(OBJECT.format(target)), tmp_path / "x.so"
    assert emitter.link(object_file, file, emitter.TARGETS[target]) == linker
    linked = Model(aligned(default_model()), Library(file))
    assert linked.score("sofa", ["grey sofa"]) == model.score("sofa", ["grey sofa"])


def test_without_a_linker_the_object_remains(
    library: Library, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_file = library.file.with_name(OBJECT.format(target))
    for linkers in ((), ("false",)):  # the second fails
        monkeypatch.setattr(emitter, "_LINKERS", linkers)
        assert emitter.link(object_file, tmp_path / "x.so", emitter.TARGETS[target]) == ""
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cpu"), [("linux-aarch64", "cortex-a72"),
                                           ("linux-aarch64-dot", "max")])  # fmt: skip
@pytest.mark.parametrize("layers", ["float32", "int8"])
def test_a_library_for_arm64_gives_the_same_scores(
    libraries: dict[str, Path], library: Library, name: str, cpu: str, layers: str, tmp_path: Path
) -> None:
    compiler, emulator = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64-static")
    if compiler is None or emulator is None:
        pytest.skip("no aarch64-linux-gnu-gcc, or no qemu-aarch64-static, on this machine")
    data = model_bytes(*random_bundle(word_dim=8, units=True), layers=layers)
    file = libraries[name]
    binary = shutil.copy(file, tmp_path / f"libraydistill{file.suffix}")
    (tmp_path / "model.rdm").write_bytes(data)
    subprocess.run(
        [compiler, "-O2", "-I", ROOT / "raydistill" / "serving" / "native",
         ROOT / "bindings" / "c" / "score.c", binary, f"-Wl,-rpath,{tmp_path}", "-lm",
         "-o", tmp_path / "score"], check=True,
    )  # fmt: skip
    pairs = odd_pairs(300)
    command = [emulator, "-cpu", cpu, "-L", "/usr/aarch64-linux-gnu", tmp_path / "score",
               tmp_path / "model.rdm"]  # fmt: skip
    found = subprocess.run(command, input=lines_of(pairs), capture_output=True, check=True).stdout
    queries, titles = zip(*pairs, strict=True)
    expected = Model(aligned(data), library).score_pairs(queries, titles)
    assert np.abs(np.array(found.split(), np.float64) - expected).max() < 1e-6
