"""A newer bundle is taken up; one that is not whole is not."""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raydistill.errors import UserError
from raydistill.server.app import create_app
from raydistill.server.bundles import Bundles
from raydistill.server.limits import Settings
from raydistill.serving.bundle import BUNDLE, CURRENT, GOLDEN, MODEL
from raydistill.serving.scorer import Scorer
from tests.helpers.server import Client, add_bundle, golden_bundle, point_to, served, until

TITLES = ["Sofa, 3 seats, grey", "Cable", "Sofa cover"]
BODY = {"query": "grey sofa", "titles": TITLES}


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    (tmp_path / "bundle").mkdir()
    add_bundle(tmp_path / "bundle", temperature=1.0)
    return tmp_path / "bundle"


@contextmanager
def _clients(address: str, num: int) -> Iterator[list[dict[str, Any]]]:
    """Clients that ask all the time; what they were answered."""
    stop, found = threading.Event(), list[dict[str, Any]]()

    def ask() -> None:
        client = Client(address)
        while not stop.is_set():
            answer = client.post("/score", BODY)
            found.append({"status": answer.status, **answer.json})
        client.close()

    threads = [threading.Thread(target=ask) for _ in range(num)]
    for thread in threads:
        thread.start()
    yield found
    stop.set()
    for thread in threads:
        thread.join()


def test_no_request_is_lost_while_bundles_are_replaced(bundles: Path) -> None:
    names = [add_bundle(bundles, temperature=1 + n / 10) for n in range(5)]
    wanted = {n: Scorer.load(bundles / n).score("grey sofa", TITLES) for n in names}
    app = create_app(bundles, settings=Settings(reload_s=0.01))
    taken = app.state.service.bundles
    with served(app) as address, _clients(address, 4) as found:
        for swap in range(20):
            point_to(bundles, names[swap % 5])
            until(lambda name=names[swap % 5]: taken.current.name == name)  # type: ignore[misc]
            num = len(found)
            until(lambda num=num: len(found) > num + 4)  # type: ignore[misc]
    assert {one["status"] for one in found} == {200}
    assert {one["bundle"] for one in found} == set(names)
    for one in found:
        np.testing.assert_array_equal(np.float32(one["scores"]), wanted[one["bundle"]])
    assert (taken.num_failures, taken.failure) == (0, "")


def _damage_golden(folder: Path) -> None:
    content = json.loads((folder / GOLDEN).read_bytes())
    content["pairs"][1]["score"] += 0.01
    (folder / GOLDEN).write_text(json.dumps(content))


def _nest_golden(folder: Path) -> None:
    pairs = b'"pairs": ' + b"[" * 100_000
    content = (folder / GOLDEN).read_bytes().partition(b'"pairs"')[0]
    (folder / GOLDEN).write_bytes(content + pairs)


def _cut(folder: Path) -> None:
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes()[:-8])


def _flip(folder: Path) -> None:
    data = bytearray((folder / MODEL).read_bytes())
    data[-100] ^= 1
    (folder / MODEL).write_bytes(data)


DAMAGE = {
    "golden scores differ": (_damage_golden, "golden pair 1 scores "),
    "golden pairs nested": (_nest_golden, "RecursionError"),
    "model cut": (_cut, "bytes"),
    "model changed": (_flip, "checksum"),
    "settings missing": (lambda folder: (folder / BUNDLE).unlink(), "cannot be read"),
    "deleted": (shutil.rmtree, "cannot be read"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_bundle_is_not_taken_and_the_old_one_goes_on(
    bundles: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(bundles, settings=Settings(reload_s=0.01))
    old = app.state.service.bundles.current.name
    damage, error = DAMAGE[kind]
    with served(app) as address:
        client = Client(address)
        name = golden_bundle(bundles / "new", temperature=2.0).name
        fingerprint = Scorer.load(bundles / name).settings["fingerprint"]
        whole = shutil.copytree(bundles / name, bundles.parent / "whole")
        damage(bundles / name)
        if (bundles / name).exists():
            (bundles / name).rename(bundles / fingerprint)
        point_to(bundles, fingerprint)
        until(lambda: client.get("/info").json["failure"] is not None)
        assert error in client.get("/info").json["failure"]
        found = client.post("/score", BODY)
        assert (found.status, found.json["bundle"]) == (200, old)
        metrics = client.get("/metrics").body.decode()
        assert "raydistill_reload_failures_total 1.0\n" in metrics  # not one a look
        assert "raydistill_reload_failing 1.0\n" in metrics
        assert sum("goes on" in record.message for record in caplog.records) == 1
        shutil.rmtree(bundles / fingerprint, ignore_errors=True)
        shutil.copytree(whole, bundles / fingerprint)  # now it is whole
        until(lambda: client.post("/score", BODY).json["bundle"] == fingerprint)
        assert client.get("/info").json["failure"] is None
        metrics = client.get("/metrics").body.decode()
        assert f'raydistill_bundle_info{{bundle="{old}"}} 0.0\n' in metrics
        assert f'raydistill_bundle_info{{bundle="{fingerprint}"}} 1.0\n' in metrics
        client.close()


def test_files_that_are_written_over_or_deleted_do_no_harm(tmp_path: Path) -> None:
    """A process that had mapped the model would end by SIGBUS."""
    folder = golden_bundle(tmp_path / "one")
    wanted = Scorer.load(folder).score("grey sofa", TITLES)
    bundles = Bundles(folder)
    name = bundles.current.name
    (folder / MODEL).write_bytes(b"")
    np.testing.assert_array_equal(bundles.current.scorer.score("grey sofa", TITLES), wanted)
    shutil.rmtree(folder)
    assert not bundles.refresh()
    assert (bundles.current.name, bundles.num_failures) == (name, 1)
    golden_bundle(tmp_path / "two", temperature=3.0).rename(folder)  # as a copy by hand
    assert bundles.refresh()
    assert bundles.current.name != name and not bundles.failure


def test_any_error_of_a_look_is_told_and_the_looks_go_on(bundles: Path) -> None:
    taken = Bundles(bundles)
    name = add_bundle(bundles, temperature=2.0)
    (bundles / CURRENT).write_text("[" * 100_000)  # RecursionError
    assert not taken.refresh() and taken.failure.startswith("RecursionError")
    point_to(bundles, name)
    assert taken.refresh() and taken.current.name == name


def test_a_local_folder_that_is_deleted_is_no_name_of_a_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    golden_bundle(tmp_path / "shop/bundle")
    taken = Bundles("shop/bundle")
    shutil.rmtree("shop")
    assert not taken.refresh()
    assert "bundle.json cannot be read" in taken.failure


def test_a_look_that_takes_long_does_not_hold_up_the_end(bundle: Path) -> None:
    """As a store that does not answer: a request is tried for a minute."""
    app = create_app(bundle, settings=Settings(reload_s=0.01))
    looks, over = threading.Event(), threading.Event()

    def look() -> bool:
        looks.set()
        return over.wait()

    app.state.service.bundles.refresh = look
    with served(app):
        assert looks.wait(30)
    over.set()  # served() has ended


@pytest.mark.parametrize(
    "kind", ["golden scores differ", "golden pairs nested", "model cut", "model changed"]
)
def test_a_server_does_not_start_with_a_damaged_bundle(tmp_path: Path, kind: str) -> None:
    folder = golden_bundle(tmp_path / "one")
    damage, error = DAMAGE[kind]
    damage(folder)
    with pytest.raises(UserError, match=error):
        create_app(folder)


def test_a_bundle_without_golden_pairs_is_served(tmp_path: Path) -> None:
    """As a hub's snapshot is."""
    folder = golden_bundle(tmp_path / "one")
    (folder / GOLDEN).unlink()
    assert Bundles(folder).current.num_golden == 0


def test_the_pointer_of_an_object_store_is_followed(s3: str, bundles: Path) -> None:
    from raydistill.files.folder import Folder

    store = Folder(f"{s3}/served/bundle")
    (first,) = [one.name for one in bundles.iterdir() if one.is_dir() and len(one.name) == 16]
    (store / first).upload(bundles / first)
    store.write_json(CURRENT, {"bundle": first, "previous": []})
    taken = Bundles(store.uri)
    assert (taken.current.name, taken.refresh()) == (first, False)
    second = add_bundle(bundles, temperature=2.0)
    store.write_json(CURRENT, {"bundle": second, "previous": [first]})
    assert not taken.refresh()  # it is not there yet
    assert (taken.current.name, taken.num_failures) == (first, 1)
    (store / second).upload(bundles / second)
    assert taken.refresh()
    assert taken.current.name == second
