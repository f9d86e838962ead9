"""Every form of a student: what its model file holds, and how near its scores are."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raydistill.files.folder import Folder
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.featurize import featurize
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.native.layout import aligned, arrays_of, describe
from raydistill.serving.text.cleaning import clean_text
from raydistill.serving.tokenizer import encode
from raydistill.student.export.forms import Forms, sample_inputs
from raydistill.student.export.stored_form import Form, exact_form
from tests.serving.native.cases import odd_pairs, random_bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # where the library is not in the cache
Made = tuple[Forms, list[str], list[str], np.ndarray]


@pytest.fixture(scope="module", params=["match", "bert2dnn"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A student of random numbers, whose rows of ids in its training pairs count as trained."""
    settings, arrays = random_bundle(preset=request.param, word_dim=8)
    spec, lexicon = NgramSpec(**settings["ngrams"]), Lexicon.from_arrays(arrays)
    queries, titles = (
        [clean_text(text)[:60] for text in side] for side in zip(*odd_pairs(400), strict=True)
    )
    folder = Folder(str(tmp_path_factory.mktemp("pairs")))
    folder.write_table("a.parquet", pa.table({"query": queries, "title": titles}))
    features = featurize(encode(queries), encode(titles), spec=spec, lexicon=lexicon)
    trained = np.zeros(spec.num_rows, bool)
    trained[features.ids_N] = True
    if spec.has_match:
        scale = features.dense_BF.std(axis=0)
        arrays["dense_mean"] = features.dense_BF.mean(axis=0)
        arrays["dense_std"] = np.where(scale > 1e-6, scale, 1).astype(np.float32)

    def sample() -> np.ndarray:
        shards = {"a.parquet": 400}
        return sample_inputs(folder, shards, arrays, spec=spec, lexicon=lexicon)

    forms = Forms(settings, arrays, spec=spec, trained_V=trained, sample=sample)
    return forms, queries, titles, trained


@pytest.mark.parametrize(
    ("form", "most"),
    [
        (Form("int8", 48, "float32"), 0.02),
        (Form("int8", 48, "int8"), 0.05),
        (Form("float32", 48, "int8"), 0.05),
        (Form("float16", 40, "float32"), 0.3),  # a random table has no columns to spare
    ],
    ids=str,
)
def test_a_form_scores_nearly_like_the_exact_one(made: Made, form: Form, most: float) -> None:
    forms, queries, titles, _ = made
    exact, stored = (
        forms.scorer(one).score_pairs(queries, titles) for one in (exact_form(48), form)
    )
    assert exact.std() > 0.05
    assert 0 < np.abs(exact - stored).max() < most
    assert np.corrcoef(exact, stored)[0, 1] > 0.9


def test_a_model_file_has_the_columns_and_the_rows_of_its_form(made: Made) -> None:
    forms, _, _, trained = made
    data = aligned(forms.model(Form("int8", 24, "int8")))
    found = arrays_of(data)
    assert describe(data)["dim"] == 24
    assert found["table"].shape == (trained.sum(), 24)
    bits = np.unpackbits(found["used"].view(np.uint8), bitorder="little")
    assert (bits[: len(trained)] == trained).all()


def test_the_exact_form_keeps_every_row_and_column(made: Made) -> None:
    forms, _, _, trained = made
    found = arrays_of(aligned(forms.model(exact_form(48))))
    assert found["table"].shape == (len(trained), 48) and not len(found["used"])


def test_a_form_has_the_same_bytes_each_time(made: Made) -> None:
    forms = made[0]
    assert forms.model(Form("int8", 24, "int8")) == forms.model(Form("int8", 24, "int8"))


def test_the_sample_is_of_all_shards(tmp_path: Path) -> None:
    settings, arrays = random_bundle(word_dim=0)
    spec, folder = NgramSpec(**settings["ngrams"]), Folder(str(tmp_path))
    lexicon = Lexicon.from_arrays(arrays)
    for name in ("a", "b"):
        table = pa.table({"query": [name] * 3, "title": [name] * 3})
        folder.write_table(f"{name}.parquet", table)
    shards = {"a.parquet": 3, "b.parquet": 3}
    x_BX = sample_inputs(folder, shards, arrays, spec=spec, lexicon=lexicon)
    assert len(x_BX) == 6 and not np.array_equal(x_BX[0], x_BX[3])
