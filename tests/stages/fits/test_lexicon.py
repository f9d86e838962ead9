from pathlib import Path

import numpy as np
import pytest

from raydistill.data.pairs import features_of
from raydistill.runs.lexicon_file import load_lexicon
from raydistill.runs.run_folder import Run
from raydistill.serving.feature_spec import VOCABULARY_BITS, NgramSpec
from raydistill.stages import prepare
from raydistill.stages.fits.lexicon import groups_of, top_ids, write_lexicon
from tests.helpers.runs import run_config


def test_a_task_counts_half_a_million_rows_or_one_large_shard() -> None:
    small = {f"part-{at:05d}": 65_536 for at in range(20)}
    assert [len(group) for group in groups_of(small)] == [8, 8, 4]
    mixed = {"a": 1_048_576, "b": 65_537, "c": 5 * 65_536, "d": 65_536, "e": 1}
    assert [list(group) for group in groups_of(mixed)] == [["a"], ["b", "c", "d", "e"]]
    assert groups_of({}) == [] and groups_of({"empty": 0}) == [{"empty": 0}]


def test_the_most_frequent_ids_by_hand() -> None:
    assert top_ids([0, 5, 1, 5, 0, 2], num=2).tolist() == [1, 3]
    assert top_ids([0, 5, 1, 5, 0, 2], num=3).tolist() == [1, 3, 5]
    assert top_ids([0, 1, 0], num=5).tolist() == [1]  # what never came has no row
    assert top_ids([1, 1, 1], num=2).tolist() == [0, 1]


@pytest.fixture
def run(local_ray: None, raw_files: Path, tiny_bert: Path, tmp_path: Path) -> Run:
    words = {"vocabulary_rows": 300, "word_dim": 3, "num_words": 50}
    run = Run(run_config(tmp_path, raw_files, tiny_bert, ngrams=words))
    prepare.prepare_stage(run)
    return run


@pytest.mark.ray
def test_the_vocabulary_is_counted_over_all_shards(run: Run) -> None:
    write_lexicon(run)
    lexicon = load_lexicon(run)
    assert lexicon.vectors_KE.shape == (50, 3)
    uncut = NgramSpec("match", VOCABULARY_BITS, word_dim=3, units=True)
    counts = np.zeros(1 << VOCABULARY_BITS, np.int64)
    for name in run.pairs.shards():
        found = features_of(run.pairs.read_table(name), spec=uncut, lexicon=lexicon)
        counts += np.bincount(found.ids_N, minlength=len(counts))
    assert (lexicon.ngrams_R == top_ids(counts, num=300)).all()
    assert run.lexicon.files() == ["lexicon.npz"]  # the counts are gone
    cut = NgramSpec("match", 12, word_dim=3, vocabulary_rows=300, units=True)
    rows = features_of(run.pairs.read_table(name), spec=cut, lexicon=lexicon).ids_N
    assert (lexicon.ngrams_R[rows] == found.ids_N[np.isin(found.ids_N, lexicon.ngrams_R)]).all()
    assert 0 < len(rows) < len(found.ids_N)


@pytest.mark.ray
def test_it_is_made_once_and_always_the_same(run: Run) -> None:
    write_lexicon(run)
    name = "lexicon.npz"
    whole = run.lexicon.read_bytes(name)
    run.lexicon.write_bytes(name, b"there")
    write_lexicon(run)
    assert run.lexicon.read_bytes(name) == b"there"
    run.lexicon.delete_file(name)
    write_lexicon(run)
    assert run.lexicon.read_bytes(name) == whole
