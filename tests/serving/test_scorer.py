import copy
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from raydistill.config.student import StudentConfig
from raydistill.errors import UserError
from raydistill.serving.bundle import BUNDLE, BUNDLE_FORMAT, bundle_files, read_bundle
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.featurize import featurize
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.native.build import built_library, own_target
from raydistill.serving.native.emit.model_file import model_bytes
from raydistill.serving.numba_scorer import NumbaScorer
from raydistill.serving.scorer import Scorer
from raydistill.serving.tokenizer import encode, single_words
from raydistill.student.network import Student, predict

pytestmark = pytest.mark.timeout(900)  # where the library is not in the cache
SPECS: list[dict[str, Any]] = [
    {"preset": "match", "word_dim": 2},
    {"preset": "match", "word_dim": 2, "char_ngrams": 3},
    {"preset": "bert2dnn", "char_ngrams": 4},
    {"preset": "bert2dnn"},
]
TITLES = ["Grey sofa, 3 seats", "sofa cover grey", "沙发", "", "1/2 in. tap", "x" * 500]


LEXICON = Lexicon.from_idf(
    np.linspace(0, 5, 1 << 10, dtype=np.float32),
    words_K=single_words(["sofa", "couch", "grey"])[0],
    vectors_KE=np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32),
)


def arrays_of(student: Student) -> dict[str, np.ndarray]:
    return {n: value.numpy() for n, value in student.arrays().items()} | LEXICON.to_arrays()


@pytest.fixture(params=SPECS)
def student(request: pytest.FixtureRequest) -> Student:
    torch.manual_seed(0)
    config = StudentConfig(embedding_dim=8, hidden=(32, 16))
    return Student(NgramSpec(**request.param, hash_bits=10), config)


@pytest.fixture(params=["native", "numba"], autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What scores: the library, and what is left where no library fits the CPU."""
    if request.param == "native":
        if (target := own_target()) is None:
            pytest.skip("there is no library for this CPU")
        library = built_library(target)
        monkeypatch.setattr("raydistill.serving.scorer.found_library", lambda: (library, ""))
    if request.param == "numba":
        monkeypatch.setattr(
            "raydistill.serving.scorer.found_library", lambda: (None, "no library here")
        )
    return str(request.param)


@pytest.fixture
def bundle(student: Student, tmp_path: Path) -> Path:
    settings = {"format": BUNDLE_FORMAT, "ngrams": asdict(student.spec),
                "temperature": 2.0, "threshold": 0.5,
                "max_query_chars": 200, "max_title_chars": 1000}  # fmt: skip
    model = model_bytes(settings, arrays_of(student))
    files = bundle_files(settings, model, golden=[], card="")[1]
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_gives_what_torch_gives(student: Student, bundle: Path) -> None:
    scorer = Scorer.load(bundle)
    queries = ["grey sofa"] * len(TITLES)
    features = featurize(encode(queries), encode(TITLES), spec=student.spec, lexicon=LEXICON)
    logits = predict(student, features, device="cpu")
    expected = 1 / (1 + np.exp(-2.0 * logits))  # at temperature 1: sigmoid(T * logit)
    assert scorer.score("grey sofa", TITLES) == pytest.approx(expected, abs=1e-6)
    assert np.std(expected) > 0


def test_arrow_arrays_and_their_memory_are_scored(bundle: Path) -> None:
    scorer = Scorer.load(bundle)
    expected = scorer.score("grey sofa", TITLES)
    queries = pa.array(["grey sofa"] * len(TITLES)).dictionary_encode()
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        titles = pa.chunked_array([pa.array(["?", *TITLES], kind)[1:]])
        assert (scorer.score_texts(queries, titles) == expected).all()
    data, offsets = encode(TITLES)
    wide = np.frombuffer(data.tobytes(), np.uint8).copy(), offsets.astype(np.int64)
    assert (scorer.score_texts(queries, wide) == expected).all()
    assert (scorer.score_texts(encode(["grey sofa"] * 6), (data, offsets)) == expected).all()


def test_a_wrong_side_is_refused_and_not_read(bundle: Path) -> None:
    scorer = Scorer.load(bundle)
    right = encode(["sofa"])
    for offsets in ([0, 5_000_000], [-8, 4], [4, 0]):
        with pytest.raises(ValueError, match="offsets"):
            scorer.score_texts(right, (right[0], np.array(offsets, np.int32)))
    with pytest.raises(ValueError, match="1 of 1 texts are null"):
        scorer.score_texts(right, pa.array([None], pa.string()))
    for wrong in (
        ["sofa"],
        pa.array([b"sofa"]),
        (right[0], [0, 4]),
        (right[0].view("i1"), right[1]),
    ):
        with pytest.raises(TypeError, match=r"give|can be read"):
            scorer.score_texts(wrong, right)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 queries for 1 titles"):
        scorer.score_texts(pa.array(["a", "b"]), right)


def test_the_log_says_what_scores(
    bundle: Path, engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", "raydistill"):
        Scorer.load(bundle)
    assert ("no library here: scoring with numba" in caplog.text) == (engine == "numba")


def test_a_table_is_scored(bundle: Path) -> None:
    scorer = Scorer.load(bundle)
    table = pa.table({"query": ["grey sofa"] * len(TITLES), "name": TITLES})
    expected = scorer.score("grey sofa", TITLES)
    assert (scorer.score_table(table, title="name") == expected).all()
    with pytest.raises(UserError, match="no column 'title'; it has"):
        scorer.score_table(table)
    scorer.settings["single_texts"] = True
    single = scorer.score_table(table.select(["name"]), title="name")
    assert (single == scorer.score("", TITLES)).all()


def test_a_table_is_scored_by_the_columns_of_the_bundle(bundle: Path) -> None:
    scorer = Scorer.load(bundle)
    table = pa.table({"query": ["sofa"] * 3, "a": ["grey", None, ""], "b": ["sofa", "rug", "pan"]})
    expected = scorer.score("sofa", ["grey sofa", "rug", "pan"])
    assert (scorer.score_table(table, title=["a", "b"]) == expected).all()
    scorer.settings["title"] = ["a", "b"]
    assert (scorer.score_table(table) == expected).all()
    assert scorer.score_table(table, title="b")[0] != expected[0]
    with pytest.raises(UserError, match="no column 'a'; it has"):
        scorer.score_table(table.drop_columns(["a"]))


def test_raw_texts_of_columns_are_cleaned(bundle: Path) -> None:
    scorer, raw = Scorer.load(bundle), ["AT&amp;T  sofa", "\ufb01ne sofa", "x" * 5_000]
    found = scorer.score_texts(pa.array(["grey sofa"] * 3), pa.array(raw))
    assert found == pytest.approx(scorer.score("grey sofa", raw), abs=1e-6)
    assert found[0] == pytest.approx(scorer.score("grey sofa", ["AT&T sofa"])[0], abs=1e-6)


def test_batches_and_neighbours_do_not_matter(bundle: Path) -> None:
    scorer = Scorer.load(bundle)
    titles = [f"title {n} sofa" for n in range(3_000)]
    together = scorer.score("sofa", titles)
    for at in (0, 1_023, 1_024, 2_999):
        assert scorer.score("sofa", titles[at : at + 1])[0] == pytest.approx(together[at], abs=1e-6)
    assert scorer.score("sofa", []).shape == (0,)


def test_half_a_surrogate_pair_is_a_question_mark(bundle: Path) -> None:
    """Such a string has no UTF-8: JSON of careless programs and file names have them."""
    scorer = Scorer.load(bundle)
    titles, mended = ["grey \ud800 sofa", "couch"], ["grey ? sofa", "couch"]
    assert scorer.score("a\udc80", titles).tolist() == scorer.score("a?", mended).tolist()
    assert scorer.score("a", titles[:1]).tolist() == scorer.score("a", mended[:1]).tolist()


def test_copies_score_the_same(bundle: Path) -> None:
    scorer = Scorer.load(bundle)
    expected = scorer.score("sofa", TITLES).tolist()
    for other in (pickle.loads(pickle.dumps(scorer)), copy.deepcopy(scorer)):
        assert other.score("sofa", TITLES).tolist() == expected
        assert (other.settings, other.threshold) == (scorer.settings, scorer.threshold)


def test_of_a_long_text_both_read_the_same_part(bundle: Path) -> None:
    scorer = Scorer.load(bundle)
    blank = " " * 30_000 + "grey sofa"  # the window has 20,096 bytes of it
    assert scorer.score("sofa", [blank]) == pytest.approx(scorer.score("sofa", [""]), abs=1e-6)


class Liar(list[str]):
    """A list whose length is not that of its items."""

    def __len__(self) -> int:
        return 5


def test_a_length_that_is_not_true_reads_nothing_else(bundle: Path) -> None:
    with pytest.raises(ValueError, match=r"queries for|titles"):
        Scorer.load(bundle).score_pairs(Liar(["sofa"]), ["a"] * 5)


def test_threads_may_share_it(bundle: Path) -> None:
    scorer = Scorer.load(bundle)
    expected = scorer.score("sofa", TITLES)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: scorer.score("sofa", TITLES), range(50)):
            assert (found == expected).all()


def test_scores_do_not_overflow(bundle: Path) -> None:
    scorer = NumbaScorer.from_model(*read_bundle(bundle))
    with np.errstate(all="raise", under="ignore"):
        assert scorer.scores_of(np.array([-1e4, 0, 1e4], np.float32)).tolist() == [0, 0.5, 1]


def test_mistakes(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no bundle in"):
        Scorer.load(tmp_path / "none")
    with pytest.raises(ValueError, match="1 queries for 2 titles"):
        Scorer.load(bundle).score_pairs(["a"], ["b", "c"])
    settings = json.loads((bundle / BUNDLE).read_text())
    (bundle / BUNDLE).write_text(json.dumps({**settings, "format": 99}))
    with pytest.raises(UserError, match="bundle format 99"):
        Scorer.load(bundle)


WRONG: list[tuple[object, str]] = [
    ("abc", "titles is of type str; give a list of str"),
    (b"abc", "titles is of type bytes"),
    (None, "titles is None"),
    (3, "titles is 3"),
    ({"a": 1}, "titles is of type dict"),
    ({"a"}, "titles is of type set"),
    ((t for t in "ab"), "titles is of type generator"),
    (["a", "b", "c", None], r"titles\[3\] is None"),
    (["a", float("nan")], r"titles\[1\] is NaN"),
    (["a", 7], r"titles\[1\] is 7 \(int\)"),
    ([b"a"], r"titles\[0\] is of type bytes"),
    ([["a"]], r"titles\[0\] is of type list"),
    (np.array(["a", None], object), r"titles\[1\] is None"),
    (np.array(["a", np.nan], object), r"titles\[1\] is NaN"),
    (np.array([1.5, 2.5]), r"titles\[0\] is 1\.5"),
    (np.array([["a"]]), "titles has 2 dimensions"),
    (pa.array(["a"]), r"titles\[0\] is of type pyarrow.*score_texts"),
]


@pytest.mark.parametrize("student", SPECS[:1], indirect=True)
@pytest.mark.parametrize(("titles", "words"), WRONG)
def test_what_is_no_list_of_texts_is_named_with_its_place(
    bundle: Path, titles: object, words: str
) -> None:
    scorer = Scorer.load(bundle)
    with pytest.raises(TypeError, match=words):
        scorer.score("q", titles)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=words):
        scorer.score_pairs(["q", "q"], titles)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=words.replace("titles", "queries")):
        scorer.score_pairs(titles, ["a", "b"])  # type: ignore[arg-type]


@pytest.mark.parametrize("student", SPECS[:1], indirect=True)
@pytest.mark.parametrize("query", [None, float("nan"), 7, ["q"], b"q"])
def test_a_query_that_is_no_text_is_named(bundle: Path, query: object) -> None:
    with pytest.raises(TypeError, match="query is "):
        Scorer.load(bundle).score(query, ["a"])  # type: ignore[arg-type]


def test_texts_may_come_in_any_order_keeping_kind(bundle: Path) -> None:
    pandas = pytest.importorskip("pandas")
    scorer = Scorer.load(bundle)
    expected = scorer.score("grey sofa", TITLES).tolist()
    # An index that has none of the places, and one that has them all at other texts: looked up by
    # label, a text that is not plain ASCII would be cleaned from another one.
    elsewhere = pandas.Series(TITLES, index=range(10, 10 + len(TITLES)))
    reversed_ = pandas.Series(TITLES, index=range(len(TITLES))[::-1])
    arrays = (np.array(TITLES), np.array(TITLES, object))
    for titles in (tuple(TITLES), *arrays, elsewhere, reversed_):
        assert scorer.score("grey sofa", titles).tolist() == expected
        queries = ["grey sofa"] * len(TITLES)
        assert scorer.score_pairs(queries, titles).tolist() == expected
        swapped = scorer.score_pairs(titles, queries).tolist()
        assert swapped == scorer.score_pairs(TITLES, queries).tolist()
