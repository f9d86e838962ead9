from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raydistill.files.folder import Folder
from raydistill.files.pieces import PIECE_ROWS, Piece
from raydistill.files.schema import LOGITS
from raydistill.teachers.soft_labels import (
    read_logits,
    scored_pieces,
    soft_labels,
    soft_logits,
)
from tests.helpers.pairs import write_word_shards


def test_the_golden_value_of_the_papers_code() -> None:
    prob = 0.024137031
    margin = np.array([[np.log(prob / (1 - prob))]], np.float64)
    found = soft_labels(margin, weights_M=[1.0], temperature=2.0)
    assert found[0] == pytest.approx(0.13589785133992555, abs=1e-7)


def test_weights_bias_and_temperature_by_hand() -> None:
    logits = np.array([[2.0, -2.0], [0.0, 4.0]], np.float32)
    # (0.75 * 2 - 0.25 * 2 + 1) / 2 = 1; (0 + 1 + 1) / 2 = 1
    found = soft_labels(logits, weights_M=[0.75, 0.25], bias=1.0, temperature=2.0)
    assert found == pytest.approx([1 / (1 + np.exp(-1.0))] * 2)
    assert found.dtype == np.float32


def test_a_one_hot_weight_is_that_teacher_alone() -> None:
    logits = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    alone = soft_labels(logits[:, 1:2], weights_M=[1.0])
    assert (soft_labels(logits, weights_M=[0, 1, 0]) == alone).all()


def test_weights_must_fit() -> None:
    with pytest.raises(ValueError, match="2 stacking weights for 3 teachers"):
        soft_labels(np.zeros((1, 3), np.float32), weights_M=[1, 0])


def test_logits_of_other_pairs_are_refused(tmp_path: Path) -> None:
    pairs, logits, _ = write_word_shards(tmp_path)
    table = pairs.read_table("part-00001.parquet")
    with pytest.raises(ValueError, match="has logits of other pairs than the shard"):
        read_logits(logits, Piece("part-00002.parquet", 0, 4, 4), table)


def test_row_groups_without_a_logit_are_left_out(tmp_path: Path) -> None:
    num_rows = 2 * PIECE_ROWS + 5
    ids, logits = np.arange(num_rows), np.zeros(num_rows, np.float32)
    absent = ids != PIECE_ROWS  # one pair is scored, the first of the second row group
    table = pa.table([ids, pa.array(logits, mask=absent)], schema=LOGITS)
    folder = Folder(str(tmp_path))
    folder.write_table("a.parquet", table)
    expected = Piece("a.parquet", PIECE_ROWS, 2 * PIECE_ROWS, num_rows)
    assert scored_pieces(folder, "a.parquet") == [expected]
    folder.write_table("a.parquet", table.slice(0, PIECE_ROWS))
    assert scored_pieces(folder, "a.parquet") == []


def test_a_pair_takes_the_weights_of_the_teachers_that_have_a_logit() -> None:
    nan = np.nan
    logits = np.array([[1, 2, 4], [1, nan, 4], [nan, nan, 4], [nan, nan, nan]], np.float32)
    found = soft_logits(logits, weights_M=(0.5, 0.3, 0.2), bias=1.0, temperature=2.0)
    # 0.5 + 0.6 + 0.8 = 1.9; (0.5 + 0.8) / 0.7; 4; each + 1, / 2
    assert np.allclose(found[:3], [1.45, (1.3 / 0.7 + 1) / 2, 2.5]) and np.isnan(found[3])
    of_two = soft_logits(logits, weights_M=(1.0, 0.0, 0.0))  # only the first has a weight
    assert np.allclose(of_two[:2], 1) and np.isnan(of_two[2:]).all()
