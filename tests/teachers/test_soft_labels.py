from pathlib import Path

import numpy as np
import pytest

from raydistill.files.pieces import Piece
from raydistill.teachers.soft_labels import read_logits, soft_labels
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
