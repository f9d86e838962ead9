"""A TOML file and overrides to settings; error messages name the mistake."""

from pathlib import Path

import pytest

from raydistill.config.loading import load_config, read_overlay
from raydistill.errors import UserError
from raydistill.files.folder import Folder


def test_reads_a_file_and_overrides(file: str) -> None:
    config = load_config(
        file,
        overrides=["train.epochs=7", "pairs.input=a.parquet", "run_dir=s3://bucket/run",
                   "student.hidden=[8, 4]", "teachers.c.model=x"],
    )  # fmt: skip
    assert config.train.epochs == 7
    assert [one.path for one in config.pairs.input] == ["a.parquet"]
    assert config.run_dir == "s3://bucket/run"
    assert config.student.hidden == (8, 4)
    assert list(config.teachers) == ["a", "b", "c"]


def test_what_is_stored_reads_back_the_same(file: str, tmp_path: Path) -> None:
    config = load_config(file, overrides=["pairs.input=['a.csv', {path='b.csv', title='name'}]"])
    (tmp_path / "stored.toml").write_text(config.to_toml())
    assert load_config(str(tmp_path / "stored.toml")) == config


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such config file: .*none.toml"):
        load_config(str(tmp_path / "none.toml"))
    (tmp_path / "broken.toml").write_text("run_dir = ")
    with pytest.raises(UserError, match="not valid TOML"):
        load_config(str(tmp_path / "broken.toml"))
    (tmp_path / "empty.toml").write_text("")
    with pytest.raises(UserError, match="run_dir is missing"):
        load_config(str(tmp_path / "empty.toml"))


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("labels.temperature=2", "unknown field labels: it is now soft_labels"),
        ("train.loss=mse", "unknown field train.loss: it is now train.target"),
    ],
)
def test_an_old_name_names_the_new_one(file: str, override: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        load_config(file, overrides=[override])


def test_run_file_and_overlay_may_be_in_a_bucket(file: str, s3: str) -> None:
    folder = Folder(f"{s3}/config")
    folder.write_bytes("run.toml", Path(file).read_bytes())
    folder.write_bytes("best.toml", b"[soft_labels]\ntemperature = 3.5\n")
    overlay = read_overlay(f"{s3}/config/best.toml")
    config = load_config(f"{s3}/config/run.toml", overlays=[overlay])
    assert config.run_dir == load_config(file).run_dir
    assert config.soft_labels.temperature == 3.5
    with pytest.raises(UserError, match=f"no such config file: {s3}/config/none.toml"):
        load_config(f"{s3}/config/none.toml")
    with pytest.raises(UserError, match=f"no such overlay file: {s3}/config/none.toml"):
        read_overlay(f"{s3}/config/none.toml")
