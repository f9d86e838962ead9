"""A model name resolves to the same model on every machine."""

import json
import os
import shutil
from pathlib import Path

import pytest

from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.model_files import (
    PinnedModel,
    load_model,
    model_files,
    model_fingerprint,
    model_folder,
    pin_model,
    pin_source,
)

FIRST, SECOND = "a" * 40, "b" * 40


def make_model(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub, as huggingface_hub lays it out: two commits, links to blobs."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = tmp_path / "models--owner--name"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(FIRST)
    (model / "blobs").mkdir()
    for commit in (FIRST, SECOND):
        snapshot = make_model(model / "snapshots" / commit, weights=commit.encode())
        weights = snapshot / "model.safetensors"
        weights.rename(model / "blobs" / commit)
        weights.symlink_to(f"../../blobs/{commit}")
    return model


def test_a_name_of_the_hub_is_pinned_to_its_commit(hub: Path) -> None:
    pinned = pin_model("owner/name")
    assert pinned.source == f"owner/name@{FIRST}"
    (hub / "refs" / "main").write_text(SECOND)  # the hub moves
    folder = load_model(pinned)
    assert folder.name == FIRST and (folder / "model.safetensors").read_bytes() == FIRST.encode()
    assert model_folder(pinned.source).uri == str(folder)
    moved = pin_model("owner/name")
    assert moved.source == f"owner/name@{SECOND}" and moved.fingerprint != pinned.fingerprint
    assert pin_source(pinned.source) == pinned.source


def test_a_commit_that_is_not_there_is_an_error(hub: Path) -> None:
    for source in (f"owner/name@{'c' * 40}", "owner/other"):
        with pytest.raises(UserError, match=f"no teacher model '{source}'.*the hub did not give"):
            pin_model(source)
    with pytest.raises(UserError, match="no such folder; pin a hub model with the 40 hex digits"):
        pin_model("owner/name@main")  # a branch moves


def test_what_other_programs_fetched_of_the_hub_is_no_part_of_a_model(hub: Path) -> None:
    before = pin_model("owner/name")
    snapshot = hub / "snapshots" / FIRST
    for extra in ("pytorch_model.bin", "openvino/openvino_model.bin", "onnx/config.json",
                  "tf_model.h5", "README.md", "rust_model.ot"):  # fmt: skip
        (snapshot / extra).parent.mkdir(exist_ok=True)
        (snapshot / extra).write_text("more")
    assert pin_model("owner/name") == before


@pytest.mark.parametrize("how", ["written", "replaced", "as_old"])
def test_a_model_that_is_another_one_here_is_refused(how: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    pinned = pin_model(str(folder))
    assert load_model(pinned) == folder
    weights = folder / "model.safetensors"
    before = weights.stat()
    if how == "replaced":
        (tmp_path / "new").write_bytes(b"WEIGHTS")
        os.replace(tmp_path / "new", weights)
    else:
        weights.write_bytes(b"WEIGHTS")
    if how == "as_old":
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = model_fingerprint(folder)
    with pytest.raises(
        UserError, match=rf"{folder} is another one on \S+: .*{found}, not {pinned.fingerprint}"
    ):
        load_model(pinned)


def test_files_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = pin_model(str(make_model(tmp_path / "model")))
    monkeypatch.setattr("hashlib.file_digest", None)
    assert load_model(pinned) == tmp_path / "model"


@pytest.mark.server
def test_a_model_in_a_bucket_is_checked(s3: str, tmp_path: Path) -> None:
    place = Folder(s3) / f"models-{tmp_path.name}"
    place.upload(make_model(tmp_path / "model"))
    pinned = pin_model(place.uri)
    assert pinned == PinnedModel(place.uri, model_fingerprint(tmp_path / "model"))
    place.write_bytes("model.safetensors", b"longer weights")
    with pytest.raises(UserError, match="is another one"):
        load_model(pinned)


def test_no_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        pin_model(str(tmp_path))
    with pytest.raises(UserError, match="no such folder"):
        pin_model(str(tmp_path / "none"))


DECIDES = (
    "config.json", "tokenizer.json", "vocab.txt", "merges.txt", "spiece.model", "bpe.codes",
    "qwen.tiktoken", "chat_template.jinja", "model-00001-of-00002.safetensors",
    "2_Dense/model.safetensors", "2_Dense/pytorch_model.bin", "modules.json",
    "additional_chat_templates/rag.jinja",
)  # fmt: skip
DOES_NOT = (
    "README.md", "picture.png", ".git/config.json", ".cache/huggingface/x.json", "onnx/config.json",
    "onnx/model.onnx", "openvino/openvino_model.bin", "tf_model.h5", "flax_model.msgpack",
    "_SUCCESS.json", "result.json", "trainer_state.json", "training_args.bin", "optimizer.pt",
)  # fmt: skip


@pytest.mark.parametrize("name", [*DECIDES, *DOES_NOT])
def test_what_decides_a_models_output_is_in_its_fingerprint(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    prints = [model_fingerprint(tmp_path)]
    for content in ("one", "two"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
        prints.append(model_fingerprint(tmp_path))
    assert len(set(prints)) == (3 if name in DECIDES else 1)


def test_beside_safetensors_older_weights_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_text("old")
    old = model_fingerprint(tmp_path)
    (tmp_path / "model.safetensors").write_text("new")
    new = model_fingerprint(tmp_path)
    (tmp_path / "pytorch_model.bin").write_text("older")
    assert model_fingerprint(tmp_path) == new != old


def name_modules(folder: Path) -> None:
    places = ("", "1_Pooling", "2_Dense")
    (folder / "modules.json").write_text(json.dumps([{"path": place} for place in places]))
    for place in places[1:]:
        (folder / place).mkdir()
        (folder / place / "config.json").write_text("{}")


def test_older_weights_of_a_dense_layer_are_read_beside_safetensors(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    name_modules(folder)
    dense, other = folder / "2_Dense" / "pytorch_model.bin", folder / "old" / "pytorch_model.bin"
    prints = [model_fingerprint(folder)]
    other.parent.mkdir()
    for file in (other, folder / "pytorch_model.bin"):  # nothing reads these
        file.write_text("more")
    assert model_fingerprint(folder) == prints[0]
    for weights in ("one", "two"):
        dense.write_text(weights)
        prints.append(model_fingerprint(folder))
    assert len(set(prints)) == 3
    assert dense in model_files(folder) and other not in model_files(folder)
    (dense.parent / "model.safetensors").write_text("new")
    assert dense not in model_files(folder)


def test_older_weights_of_a_dense_layer_are_fetched(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a model with safetensors only those of modules without."""
    snapshot = hub / "snapshots" / FIRST
    wanted: list[list[str]] = []

    def fetch(name: str, *, allow_patterns: list[str], **settings: object) -> str:
        wanted.append(allow_patterns)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    model_folder(f"owner/name@{FIRST}")
    assert len(wanted) == 1
    name_modules(snapshot)
    model_folder(f"owner/name@{FIRST}")
    assert wanted[2] == ["1_Pooling/pytorch_model.bin", "2_Dense/pytorch_model.bin"]
    (snapshot / "2_Dense" / "model.safetensors").write_text("new")
    model_folder(f"owner/name@{FIRST}")
    assert wanted[4] == ["1_Pooling/pytorch_model.bin"]


def test_links_are_followed(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    (model / "0_Transformer").mkdir()
    (model / "0_Transformer" / "config.json").write_text("{}")
    linked = shutil.copytree(model, tmp_path / "linked")
    shutil.move(linked / "0_Transformer", tmp_path / "elsewhere")
    (linked / "0_Transformer").symlink_to(tmp_path / "elsewhere")
    (linked / "loop").symlink_to(linked)
    assert model_fingerprint(linked) == model_fingerprint(model)
    (linked / "vocab.txt").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"vocab\.txt is a link to a missing file"):
        model_fingerprint(linked)
