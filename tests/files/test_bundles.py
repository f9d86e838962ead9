"""A bundle is loaded from where it is: a folder, an object store, a hub."""

import json
import shutil
from pathlib import Path

import pytest

from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.serving.bundle import BUNDLE, CURRENT, MODEL, NGRAMS, read_ngrams
from raydistill.serving.scorer import Scorer, local_folder
from tests.helpers.bundles import make_bundle

TITLES = ["grey sofa", "sofa cover", ""]
COMMIT = "a" * 40


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle", ngrams=["sofa", "grey sofa"])


def test_a_bundle_of_a_store(s3: str, bundle: Path) -> None:
    name = "0123456789abcdef"
    runs = Folder(f"{s3}/bundles/run/bundle")
    for file in bundle.iterdir():
        (runs / name).write_bytes(file.name, file.read_bytes())
    runs.write_json(CURRENT, {"bundle": name, "previous": []})
    expected = Scorer.load(bundle).score("sofa", TITLES).tolist()
    assert Scorer.load(runs.uri).score("sofa", TITLES).tolist() == expected  # the newest one
    assert Scorer.load(f"{runs.uri}/{name}").score("sofa", TITLES).tolist() == expected
    assert read_ngrams(local_folder(runs.uri)) == ["sofa", "grey sofa"]
    with pytest.raises(UserError, match="no bundle in"):
        Scorer.load(f"{s3}/bundles/none")
    data = bytearray((bundle / MODEL).read_bytes())
    data[-100] ^= 1
    (runs / "damaged").write_bytes(BUNDLE, (bundle / BUNDLE).read_bytes())
    (runs / "damaged").write_bytes(MODEL, bytes(data))
    with pytest.raises(UserError, match="the model file is damaged: its checksum differs"):
        Scorer.load(f"{runs.uri}/damaged")


@pytest.mark.slow
def test_a_bundle_of_a_hub(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its cache, as huggingface_hub lays it out; a folder of that name comes first."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    model = tmp_path / "hub" / "models--owner--student"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(COMMIT)
    (model / "snapshots").mkdir()
    shutil.copytree(bundle, model / "snapshots" / COMMIT)
    monkeypatch.chdir(tmp_path)
    expected = Scorer.load(bundle).score("sofa", TITLES).tolist()
    for name in ("owner/student", f"owner/student@{COMMIT}"):
        assert Scorer.load(name).score("sofa", TITLES).tolist() == expected
        assert read_ngrams(local_folder(name)) == ["sofa", "grey sofa"]
    with pytest.raises(UserError, match="no bundle 'owner/other': not a folder, and the hub did"):
        Scorer.load("owner/other")
    (tmp_path / "owner" / "student").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no bundle in owner/student: it has no bundle\.json"):
        Scorer.load("owner/student")


def test_a_name_that_no_hub_has_is_a_folder(tmp_path: Path) -> None:
    for name in (str(tmp_path / "none"), "./none", "../none", "none", "a/b/c"):
        with pytest.raises(UserError, match="no bundle in"):
            Scorer.load(name)


def test_a_run_folder_is_told_where_its_bundle_is(bundle: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(bundle, run / "bundle")
    with pytest.raises(UserError, match=r"it has no bundle\.json; give .*/run/bundle$"):
        Scorer.load(run)
    with pytest.raises(UserError, match=r"has no bundle\.json$"):
        Scorer.load(tmp_path.parent)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [(None, "NoneType"), ("sofa", "str"), ({"sofa": 1}, "dict"), (["sofa", 1], "other values")],
)
def test_texts_of_a_wrong_shape_are_refused(bundle: Path, wrong: object, kind: str) -> None:
    file = bundle / NGRAMS
    file.write_text(json.dumps({**json.loads(file.read_text()), "ngrams": wrong}))
    with pytest.raises(UserError, match=f"ngrams must be a list of texts, it holds {kind}"):
        read_ngrams(bundle)
