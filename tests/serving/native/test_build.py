import platform
import sys
from pathlib import Path

import pytest

from raydistill.errors import UserError, WorkError
from raydistill.serving.native import build
from raydistill.serving.native.__main__ import main as copy_files
from raydistill.serving.native.layout import LIBRARY, OBJECT


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return tmp_path / f"native-{build.fingerprint()}"


def test_the_cache_is_in_the_folder_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.cached_library("linux-aarch64") is None
    assert list(tmp_path.iterdir()) == []  # a look writes nothing
    folder = tmp_path / "raydistill" / f"native-{build.fingerprint()}"
    folder.mkdir(parents=True)
    (folder / LIBRARY.format("linux-aarch64")).write_bytes(b"")
    folder.chmod(0o500)  # an image whose file system is read-only
    assert build.cached_library("linux-aarch64") == folder / LIBRARY.format("linux-aarch64")


def test_what_is_in_the_cache_is_not_emitted_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_EMITTER", "no_such_module")
    assert build.cached_library("linux-aarch64") is None
    object_file, library = (cache / name.format("linux-aarch64") for name in (OBJECT, LIBRARY))
    cache.mkdir()
    object_file.write_bytes(b"")
    assert build.built_library("linux-aarch64") == object_file  # no linker was found
    library.write_bytes(b"")
    assert build.built_library("linux-aarch64") == library


def test_an_emitter_that_fails_is_named_with_its_error(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_EMITTER", "no_such_module")
    with pytest.raises(WorkError, match="No module named no_such_module"):
        build.built_library("linux-aarch64")
    assert [path.name for path in cache.iterdir()] == [".lock"]


def test_a_change_of_a_source_changes_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before, files = build.fingerprint(), build.sources(build._SOURCES)
    for name in (
        "featurize.py",
        "units/points.py",
        "native/emit/memory.py",
        "native/layout.py",
    ):
        changed = {**files, f"serving/{name}": files[f"serving/{name}"] + b"\n"}
        monkeypatch.setattr(build, "sources", lambda _, changed=changed: changed)
        assert build.fingerprint() != before
    monkeypatch.setattr(build, "sources", lambda _: files)
    assert build.fingerprint() == before
    monkeypatch.setattr(build, "_version", lambda package: f"{package} 1.0")
    assert build.fingerprint() != before


@pytest.mark.parametrize(
    ("system", "machine", "target"),
    [
        ("Linux", "aarch64", "linux-aarch64"),
        ("Darwin", "arm64", "macos-arm64"),
        ("Linux", "riscv64", None),
        ("Windows", "AMD64", None),
    ],
)
def test_the_target_follows_the_machine(
    system: str, machine: str, target: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert build.own_target() == target


def test_an_older_cpu_has_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(build, "_CPU_INFO", info)
    info.write_text("model name\t: an old one\nflags\t\t: fpu sse sse2 avx\nbugs\t\t: none\n")
    assert build.own_target() is None
    info.write_text(f"flags\t\t: fpu {' '.join(build._V3)} sha\nbugs\t\t: none\n")
    assert build.own_targets() == ["linux-x86_64-v3"]
    info.write_text(f"flags\t\t: fpu {' '.join(build._V4)} sha\nbugs\t\t: none\n")
    assert build.own_targets() == ["linux-x86_64-v4", "linux-x86_64-v3"]


def test_an_arm64_cpu_with_dot_products_has_its_own_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(build, "_CPU_INFO", info)
    info.write_text("processor\t: 0\nFeatures\t: fp asimd evtstrm crc32\n")
    assert build.own_targets() == ["linux-aarch64"]
    info.write_text("processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp\n")
    assert build.own_targets() == ["linux-aarch64-dot", "linux-aarch64"]


def test_of_a_wheel_with_two_libraries_the_faster_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(build.GIVEN, raising=False)
    monkeypatch.setattr(build, "__file__", str(tmp_path / "build.py"))
    (tmp_path / "lib").mkdir()
    files = {name: tmp_path / "lib" / LIBRARY.format(name) for name in ("fast", "slow")}
    for file in files.values():
        file.write_bytes(b"")
    monkeypatch.setattr(build, "own_targets", lambda: ["fast", "slow"])
    assert build.found_library() == (files["fast"], "")
    monkeypatch.setattr(build, "own_targets", lambda: ["slow"])
    assert build.found_library() == (files["slow"], "")
    assert (build._named("slow"), build._named("other")) == (files["slow"], None)
    monkeypatch.setattr(build, "own_targets", lambda: [])
    assert build.found_library()[0] is None


def test_a_copy_has_the_name_by_which_programs_load_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(build.GIVEN, raising=False)
    cache.mkdir()
    (cache / LIBRARY.format("linux-aarch64")).write_bytes(b"for arm64")
    (cache / OBJECT.format("macos-arm64")).write_bytes(b"no linker")
    (tmp_path / "native").mkdir()
    copied = build.copy_library(tmp_path / "native", target="linux-aarch64")
    assert (
        copied == tmp_path / "native" / "libraydistill.so" and copied.read_bytes() == b"for arm64"
    )
    assert "rd_score(" in (tmp_path / "native" / build.HEADER).read_text()
    assert build.copy_library(tmp_path, target="macos-arm64").name == OBJECT.format("macos-arm64")
    monkeypatch.setattr(build, "own_targets", lambda: [])
    with pytest.raises(UserError, match="no native library fits this CPU"):
        build.copy_library(tmp_path)


def test_the_command_copies_both_files_or_says_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.so").write_bytes(b"a library")
    monkeypatch.setenv(build.GIVEN, str(tmp_path / "own.so"))
    monkeypatch.setattr(sys, "argv", ["native", str(tmp_path / "for" / "go")])
    copy_files()
    assert (tmp_path / "for" / "go" / "libraydistill.so").read_bytes() == b"a library"
    assert (tmp_path / "for" / "go" / build.HEADER).is_file()
    for folder, library, told in (("own.so", "own.so", "File exists"), ("x", "none.so", "none.so")):
        monkeypatch.setenv(build.GIVEN, str(tmp_path / library))
        monkeypatch.setattr(sys, "argv", ["native", str(tmp_path / folder)])
        with pytest.raises(SystemExit) as ended:
            copy_files()
        assert ended.value.code == 1 and told in capsys.readouterr().err
