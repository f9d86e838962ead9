"""Credentials in URIs: masked in every line that is shown, refused in settings."""

import logging
from pathlib import Path

import pytest

from raydistill.cli.main import main
from raydistill.config.loading import parse_config
from raydistill.credentials import masked
from raydistill.errors import UserError
from raydistill.files.uris import open_uri, read_uri

HIDDEN = [
    ("s3://AKIA:s3cret@bucket/x", "s3://***@bucket/x"),
    ("s3://AKIA:s3/cr+et@bucket/x", "s3://***@bucket/x"),
    ("s3://s3cret@bucket/x", "s3://***@bucket/x"),
    ("abfs://c:s3cret@account/x", "abfs://***@account/x"),
    ("s3://b/x?secret_key=s3cret&region=eu", "s3://b/x?secret_key=***&region=eu"),
    ("s3://b/x?region=eu&access_key=s3cret", "s3://b/x?region=eu&access_key=***"),
    ("s3://b/x?session_token=s3cret", "s3://b/x?session_token=***"),
    ("https://h/x?sv=1&sig=s3cret", "https://h/x?sv=1&sig=***"),
    ("https://h/x?X-Amz-Signature=s3cret", "https://h/x?X-Amz-Signature=***"),
]
SHOWN = [
    "s3://bucket/a@b:c", "s3://bucket/x?endpoint_override=http://127.0.0.1:9000&region=eu",
    "abfs://container@account.dfs.core.windows.net/x", "hf://datasets/a/b@main/x.parquet",
    "http://host:9000/a@b", "owner/name@0123", "/data/a:b@c", "max_tokens=3 token=x",
]  # fmt: skip
RUN = """
run_dir = "runs/x"
[pairs]
input = ["pairs.csv"]
[judged]
input = ["judged.csv"]
[teachers.a]
model = "model"
"""


@pytest.mark.parametrize(("uri", "shown"), HIDDEN)
def test_credentials_are_masked(uri: str, shown: str) -> None:
    assert masked(f"cannot open '{uri}' and {uri}") == f"cannot open '{shown}' and {shown}"


@pytest.mark.parametrize("text", SHOWN)
def test_other_texts_stay(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize("uri", [uri for uri, _ in HIDDEN])
def test_no_uri_with_credentials_is_opened(uri: str) -> None:
    for use in (open_uri, read_uri):
        with pytest.raises(UserError, match="credentials in a URI") as caught:
            use(uri)
        assert "s3cret" not in str(caught.value) and "cr+et" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ("run_dir=s3://AKIA:s3cret@bucket/x", "run_dir"),
        ("pairs.input=['a.csv', 's3://b/x?secret_key=s3cret']", "pairs.input"),
        ("pairs.input=[{path='s3://AKIA:s3cret@b/x'}]", "pairs.input.path"),
        ("teachers.a.model=s3://AKIA:s3cret@b/x", "teachers.a.model"),
        ("train.epoch=s3://AKIA:s3cret@b/x", "train.epoch"),  # an error that shows what was given
        ("run_dir:s3://AKIA:s3cret@b/x", "--set"),
    ],
)
def test_settings_with_credentials_are_refused_and_not_shown(
    override: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.toml").write_text(RUN)
    command = ["prepare", "--config", str(tmp_path / "run.toml"), "--set", override]
    assert main(command) == 2
    err = capsys.readouterr().err
    assert name in err and "***@b" in err.replace("=***", "***@b") and "s3cret" not in err


def test_settings_without_credentials_are_taken() -> None:
    uri = "s3://bucket/x?endpoint_override=http://127.0.0.1:9000"
    text = RUN.replace("runs/x", uri)
    assert parse_config(text, name="run.toml").run_dir == uri


def test_log_lines_show_no_credentials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--config", str(tmp_path / "none.toml")]) == 2
    logging.getLogger("raydistill").warning("not at %s", "s3://AKIA:s3cret@bucket/x")
    assert capsys.readouterr().err.splitlines()[-1].endswith("not at s3://***@bucket/x")
