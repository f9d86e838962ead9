"""doctor: versions against ranges, the store, Ray's answer, a machine without [distill]."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raydistill.cli.main import main
from raydistill.files.folder import Folder
from raydistill.machine import ray_checks, system, versions
from raydistill.machine.check import Check, in_other_process
from raydistill.machine.store import check_run_dir
from raydistill.machine.versions import Need, parse_need


@pytest.mark.parametrize(
    ("line", "need"),
    [
        ("numpy>=2.0", Need("numpy", ">=2.0", "")),
        ('torch>=2.7; extra == "distill"', Need("torch", ">=2.7", "distill")),
        (
            "ray[data,default,train,tune]<2.61,>=2.60; extra == 'distill'",
            Need("ray", "<2.61,>=2.60", "distill", "[data,default,train,tune]"),
        ),
        ("scikit-learn (>=1.7) ; extra=='dev'", Need("scikit-learn", ">=1.7", "dev")),
        ("plain", Need("plain", "", "")),
    ],
)
def test_a_line_of_metadata_is_read(line: str, need: Need) -> None:
    assert parse_need(line) == need


@pytest.mark.parametrize(
    ("given", "found", "is_allowed"),
    [
        (">=2.60,<2.61", "2.60.0", True),
        (">=2.60,<2.61", "2.61.0", False),
        (">=2.60,<2.61", "2.59.9", False),
        (">=2.7", "2.13.0+cpu", True),
        (">=5.0,<6", "5.9.1", True),
        (">=5.0,<6", "6", False),
        ("==0.1.0", "0.1", True),
        ("==1.*", "1.9", True),
        ("!=1.5", "1.5.0", False),
        ("~=1.4.2", "1.4.9", True),
        ("~=1.4.2", "1.5.0", False),
        ("", "0", True),
    ],
)
def test_a_version_is_compared_number_by_number(given: str, found: str, is_allowed: bool) -> None:
    assert Need("any", given, "").allows(found) == is_allowed


def test_the_ranges_of_the_metadata_hold_here() -> None:
    """The environment of the tests is installed by constraints.txt."""
    found = list(versions.check_versions(needs_distill=True))
    assert [check for check in found if check.status == "missing"] == []
    assert {check.name for check in found} >= {"libraries", "constraints.txt"}


def test_a_library_outside_its_range_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needs = [Need("numpy", ">=99", ""), Need("no-such-library", ">=1.0", "distill")]
    monkeypatch.setattr(versions, "needs", lambda: needs)
    first, second, *_ = versions.check_versions(needs_distill=True)
    assert (first.status, first.mend) == ("missing", "pip install 'numpy>=99'")
    assert "is outside >=99" in first.text
    assert second.text == "no-such-library is not installed"
    assert second.mend == "pip install 'no-such-library>=1.0'"


NO_DISTILL = """
import sys
class Refuse:
    names = {"torch", "ray", "pyarrow", "pydantic", "numba", "llvmlite", "transformers", "pandas"}
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ImportError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
from importlib import metadata
real = metadata.version
def version(name):
    if name in Refuse.names:
        raise metadata.PackageNotFoundError(name)
    return real(name)
metadata.version = version
from raydistill.machine.doctor import examine
for check in examine(run_dir=None, address=None, is_of_run=False):
    print(check.status, check.name, check.text)
"""


def test_a_serving_machine_lacks_nothing(tmp_path: Path) -> None:
    """Without pyarrow, torch, Ray, pydantic and numba nothing is missing but what was not asked."""
    command = [sys.executable, "-c", NO_DISTILL]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any("this machine serves bundles, and makes none" in line for line in lines)
    assert any(line.startswith("ok numba not installed") for line in lines)
    # In a checkout the library is built by hand; without numba nothing else scores.
    lacking = [line for line in lines if line.startswith("missing")]
    assert all(line.startswith("missing native library") for line in lacking), lacking


def test_with_a_run_file_the_libraries_that_read_it_are_missing(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("")
    code = NO_DISTILL.partition("from raydistill")[0] + (
        "from raydistill.cli.main import main\nsys.exit(main(['doctor', '--config', sys.argv[1]]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run.toml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert "missing  libraries        pydantic is not installed" in done.stdout
    assert "missing  Ray              is not installed" in done.stdout
    assert "-> pip install 'torch>=2.7'" in done.stdout


def test_without_a_configuration_the_command_ends_with_0(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor", "--no-ray"]) == 0
    out = capsys.readouterr().out
    assert "ok       Python" in out
    assert out.splitlines()[-1].startswith("doctor: 0 missing, ")
    assert main(["doctor", "--no-ray", "--json"]) == 0
    names = {check["name"] for check in json.loads(capsys.readouterr().out)}
    assert {"Python", "libraries", "torch", "clock", "open files", "native library"} <= names


def test_a_folder_that_cannot_be_written_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    (check,) = check_run_dir(str(tmp_path / "a" / "b"))
    assert check.status == "missing" and f"{tmp_path} is not writable" in check.text
    assert not (tmp_path / "a").exists()


@pytest.mark.server
def test_the_probe_of_a_store_leaves_nothing(s3: str) -> None:
    import boto3

    client = boto3.client("s3")

    def keys() -> set[str]:
        found = client.list_objects_v2(Bucket="bucket", Prefix="doctor").get("Contents", [])
        return {one["Key"] for one in found}

    store, clock = check_run_dir(f"{s3}/doctor/new/run")
    assert (store.status, clock.status) == ("ok", "ok"), (store, clock)
    assert "put, get and delete" in store.text
    assert keys() == set()
    Folder(f"{s3}/doctor/old").write_bytes("mine.txt", b"mine")
    assert next(iter(check_run_dir(f"{s3}/doctor/old"))).status == "ok"
    # Arrow may write an empty object for the folder of a deleted file, as it does for runs.
    assert keys() - {"doctor/old/"} == {"doctor/old/mine.txt"}


@pytest.mark.server
def test_a_store_that_refuses_is_named(s3: str) -> None:
    (check,) = check_run_dir("s3://no-such-bucket/run")
    assert check.status == "missing"
    assert check.text.startswith("s3://no-such-bucket/run: ") and "AWS_" in check.mend


def test_the_token_is_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "very-secret")
    assert ray_checks._check_token() == Check("Ray's token", "ok", "in RAY_AUTH_TOKEN")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert ray_checks._check_token().status == "warning"
    (tmp_path / "token").write_text("very-secret")
    assert "very-secret" not in ray_checks._check_token().text
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert "runs code on the cluster" in ray_checks._check_token().text


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_password_in_an_address_is_not_shown(
    options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://user:canary@127.0.0.1:9")
    assert main(["doctor", *options]) == 3
    shown = capsys.readouterr().out
    assert "canary" not in shown
    assert "nothing answers at http://***@127.0.0.1:9" in shown


def test_what_hangs_or_crashes_elsewhere_is_a_line() -> None:
    run = {"environment": {**os.environ}}
    start_s = time.monotonic()
    assert in_other_process("import time; time.sleep(60)", timeout_s=0.5, **run) == {
        "error": "no answer within 0 s"
    }
    assert time.monotonic() - start_s < 30
    assert in_other_process("import os; os.abort()", timeout_s=60, **run)["error"]
    found = in_other_process("raise SystemExit('no luck')", timeout_s=60, **run)
    assert found == {"error": "no luck"}


def test_an_address_without_ray_is_missing() -> None:
    (check,) = [ray_checks._check_job_server("http://127.0.0.1:9")]
    assert check.status == "missing" and check.mend.startswith("curl")


@pytest.mark.ray
@pytest.mark.slow
def test_a_local_ray_starts() -> None:
    found = list(ray_checks.check_ray(None, needs_ray=True))
    assert [check.status for check in found] == ["ok", "ok"], found
    assert found[-1].text == "a local Ray starts and runs a task"


def test_few_open_files_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system.resource, "getrlimit", lambda kind: (256, 8_192))
    assert system.check_files() == Check(
        "open files", "warning", "ulimit -n is 256", "ulimit -n 8192"
    )
