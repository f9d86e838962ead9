"""The steps of label on a shard of more than one piece."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raydistill.config.teachers import LabelConfig
from raydistill.files.folder import Folder
from raydistill.files.model_files import pin_model
from raydistill.files.pieces import PIECE_ROWS
from raydistill.files.schema import LOGITS, PAIRS
from raydistill.teachers.cross_encoder import Teacher
from raydistill.teachers.scoring_steps import ScoreTokens, read_tokens
from raydistill.teachers.shards.logits import write_logits
from raydistill.teachers.shards.texts import from_bytes
from tests.helpers.models import make_bert

ROWS = PIECE_ROWS + 40
NEAR = slice(PIECE_ROWS - 20, PIECE_ROWS + 20)  # rows on both sides of where the pieces meet


def write_pairs(folder: Folder, queries: list[str], titles: list[str]) -> dict[str, str]:
    """A shard of so many rows; the pairs come again and again."""
    rows = pa.array(np.arange(ROWS) % len(queries))
    columns = [pa.array(np.arange(ROWS)), pa.array(queries).take(rows), pa.array(titles).take(rows)]
    table = pa.table([*columns, pa.array(np.ones(ROWS, np.float32))], schema=PAIRS)
    (folder / "pairs").write_table("a.parquet", table)
    return {"folder": (folder / "pairs").uri, "name": "a.parquet", "target": "a.parquet"}


def score(item: dict[str, str], model: Path, *, max_bad_fraction: float = 0.01) -> pa.Table:
    settings = LabelConfig(dtype="float32", max_length=32, max_bad_fraction=max_bad_fraction)
    scorer = ScoreTokens(model=pin_model(str(model)), settings=settings, device="cpu")
    folder = Folder(item["folder"].removesuffix("/pairs"))
    tokens = read_tokens(item, b"", model=pin_model(str(model)), max_length=32)
    write_logits(*scorer(*tokens), logits=folder / "logits", quarantine=folder / "quarantine")
    return (folder / "logits").read_table("a.parquet")


@pytest.mark.slow
def test_pairs_on_both_sides_of_a_piece_have_their_own_logits(
    tiny_bert: Path, tmp_path: Path
) -> None:
    queries = ["sofa", "oak desk", "drill", "grey rug", "tap", "pot", "lamp"]
    titles = ["sofa cover", "desk 18", "18 volt drill", "rug", "sink tap", "pan", "green lamp"]
    item = write_pairs(Folder(str(tmp_path)), queries, titles)
    found = score(item, tiny_bert)
    assert found.schema == LOGITS and found["pair_id"].to_pylist() == list(range(ROWS))
    teacher = Teacher(tiny_bert, device="cpu", dtype="float32", max_length=32)
    logits = teacher.logits(queries, titles)
    assert np.ptp(logits) > 0.1
    expected = logits[np.arange(ROWS) % 7]
    assert np.allclose(found["logit"].to_numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("has_query", [True, False])
def test_tokens_travel_small(tiny_bert: Path, tmp_path: Path, has_query: bool) -> None:
    """10 wordpieces, ids below 256: 10 x 1 byte, with types 10 x 2; and 4 to 8 a column beside."""
    query = "grey oak desk" if has_query else ""
    title = "oak desk 18 v" if has_query else "oak desk 18 v grey blue red bed"
    item = write_pairs(Folder(str(tmp_path)), [query], [title])
    _, data = read_tokens(item, b"", model=pin_model(str(tiny_bert)), max_length=32)
    table = from_bytes(data)
    assert [batch.num_rows for batch in table.to_batches()] == [PIECE_ROWS, 40]
    assert set(map(len, table["ids"].to_pylist()[NEAR])) == {10}
    assert (table["types"].null_count == 0) == has_query
    assert len(data) < ROWS * (10 * (2 if has_query else 1) + 24)


@pytest.mark.slow
def test_bad_pairs_of_any_piece_are_in_quarantine(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = make_bert(tmp_path / "broken", num_labels=1)
    broken = AutoModelForSequenceClassification.from_pretrained(model)
    word = AutoTokenizer.from_pretrained(model).convert_tokens_to_ids("blue")
    with torch.no_grad():
        broken.bert.embeddings.word_embeddings.weight[word] = float("nan")
    broken.save_pretrained(model)
    titles = ["red rug"] * 1_000
    titles[3] = "blue rug"
    folder = Folder(str(tmp_path))
    found = score(write_pairs(folder, ["rug"] * 1_000, titles), model)
    bad = list(range(3, ROWS, 1_000))
    assert np.flatnonzero(found["logit"].is_null().to_numpy()).tolist() == bad
    rejected = (folder / "quarantine").read_table("a.parquet")
    assert rejected["row"].to_pylist() == bad
    assert set(rejected["title"].to_pylist()) == {"blue rug"}
