"""Teachers with classes and sentence encoders in `label`: logits, scale, fingerprints, errors."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raydistill.cluster.connection import Cluster
from raydistill.cluster.teacher_trial import check_teachers
from raydistill.config.teachers import COSINE_BIAS, COSINE_SCALE, TeacherConfig
from raydistill.errors import UserError
from raydistill.runs.run_folder import Run
from raydistill.stages import label
from raydistill.teachers.bi_encoder import BiEncoder
from raydistill.teachers.cross_encoder import Teacher
from raydistill.teachers.kinds import bi_encoder as kind
from raydistill.teachers.stacking import Calibration
from tests.helpers.checkpoints import reconfigured
from tests.helpers.logits import label_without_ray
from tests.helpers.models import make_bert
from tests.helpers.runs import run_config
from tests.helpers.sentence import make_sentence_encoder

pytestmark = pytest.mark.slow
ONE = Cluster(num_cores=1, num_gpus=0)
ESCI = {"0": "Exact", "1": "Substitute", "2": "Complement", "3": "Irrelevant"}
PUBLISHED = {"Exact": 1.0, "Substitute": 0.1, "Complement": 0.01, "Irrelevant": 0.0}


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder with ESCI's four classes."""
    folder = tmp_path_factory.mktemp("classes")
    plain = make_bert(folder / "plain", num_labels=4)
    labels = {name: int(number) for number, name in ESCI.items()}
    return reconfigured(plain, folder / "esci", id2label=ESCI, label2id=labels)


@pytest.fixture(scope="session")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sentences") / "model"
    return make_sentence_encoder(folder, pooling={"pooling_mode": "mean"})


def run_with(folder: Path, raw: Path, **teacher: object) -> Run:
    """Many queries of the shop have no word that the tiny sentence encoder knows."""
    given = {"tiny": TeacherConfig.model_validate(teacher)}
    some_bad = {"max_bad_fraction": 0.5}
    return Run(run_config(folder, raw, Path("no-model"), teachers=given, label=some_bad))


def first_shard(run: Run) -> tuple[pa.Table, pa.Table]:
    """The pairs and the logits of the first shard."""
    name = run.pairs.shards()[0]
    return run.pairs.read_table(name), run.logits("tiny").read_table(name)


@pytest.mark.ray
def test_classes_are_scored_by_their_gains(
    classes: Path, raw_files: Path, prepared_dir: Path
) -> None:
    run = run_with(prepared_dir, raw_files, model=str(classes), gains=PUBLISHED)
    check_teachers(run, ("label",), connect=lambda: None)
    label_without_ray(run, {run.pairs.shards()[0]})
    pairs, logits = first_shard(run)
    teacher = Teacher(classes, device="cpu", dtype="float32", max_length=32, gains="esci")
    texts = [pairs[name].to_pylist()[:50] for name in ("query", "title")]
    found = logits["logit"].to_numpy()[:50]
    assert found == pytest.approx(teacher.logits(*texts), abs=1e-4) and np.ptp(found) > 0.5
    tokens = teacher.tokenise(*texts)
    order = np.argsort(-tokens.lengths_B, kind="stable")
    z_BK = teacher._run(tokens.take(order)).detach().double().numpy()
    p_BK = np.exp(z_BK) / np.exp(z_BK).sum(axis=1, keepdims=True)
    p_B = p_BK @ np.array([1.0, 0.1, 0.01, 0.0])
    assert found[order] == pytest.approx(np.log(p_B / (1 - p_B)), abs=1e-3)


def test_gains_are_in_the_fingerprint(classes: Path, tiny_bert: Path, tmp_path: Path) -> None:
    def mark(**teacher: object) -> str:
        return run_with(tmp_path, tmp_path, **teacher).label_fingerprint("tiny")

    other = {**PUBLISHED, "Substitute": 0.2}
    marks = [mark(model=str(classes), gains=gains) for gains in (None, PUBLISHED, other, "esci")]
    assert len(set(marks)) == 4
    plain = run_with(tmp_path, tmp_path, model=str(tiny_bert))
    assert plain.config.teachers["tiny"].reading() == []  # as before there were gains


def test_classes_that_do_not_fit_are_one_line_before_prepare(
    classes: Path, tiny_bert: Path, raw_files: Path, tmp_path: Path
) -> None:
    def problem(**teacher: object) -> str:
        run = run_with(tmp_path / "run", raw_files, **teacher)
        with pytest.raises(UserError) as caught:
            check_teachers(run, ("label",), connect=lambda: None)
        assert not (tmp_path / "run").exists()
        return str(caught.value)

    assert problem(model=str(classes)).endswith(
        "esci has 4 outputs; a teacher has 1 or 2, or a gain for each class: the classes are "
        "Exact, Substitute, Complement, Irrelevant; write into the run file's table of this "
        "teacher gains = { Exact = 1, Substitute = 0.1, Complement = 0.01, Irrelevant = 0 }, "
        "each a number in 0..1"
    )
    misspelt = {**PUBLISHED, "Irelevant": 0.0}
    assert "did you mean Irrelevant?" in problem(model=str(classes), gains=misspelt)
    assert "has 1 output" in problem(model=str(tiny_bert), gains={"LABEL_0": 1.0, "x": 0.0})


@pytest.mark.ray
def test_a_cosine_has_a_scale_fitted_on_the_judged_train_pairs(
    sentences: Path, raw_files: Path, prepared_dir: Path
) -> None:
    run = run_with(prepared_dir, raw_files, bi_encoder=str(sentences))
    assert label.label_stage(run, ONE)
    found = kind.read_calibration(run.logits("tiny"))
    sample = kind.judged_sample(run)
    assert found is not None and 0 <= found.num_pairs <= sample.num_rows > 500
    pairs, logits = first_shard(run)
    encoder = BiEncoder(sentences, device="cpu", dtype="float32", max_length=32)
    expected = found.logits(
        encoder.cosines(*(pairs[name].to_pylist() for name in ("query", "title")))
    )
    assert np.allclose(logits["logit"].to_numpy(), expected, atol=1e-3, equal_nan=True)
    done = run.logits("tiny").success()
    assert done is not None and done["rows_out"] > 0
    before = run.logits("tiny").read_json(kind.CALIBRATION)
    assert not label.label_stage(Run(run.config), ONE)
    assert run.logits("tiny").read_json(kind.CALIBRATION) == before


@pytest.mark.ray
def test_unknown_texts_and_the_default_scale(
    sentences: Path, raw_files: Path, prepared_dir: Path
) -> None:
    run = run_with(prepared_dir, raw_files, bi_encoder=str(sentences))
    kind.write_calibration(run.logits("tiny"), Calibration())
    name = run.pairs.shards()[0]
    pairs = run.pairs.read_table(name)
    titles = ["диван", *pairs["title"].to_pylist()[1:]]
    at = pairs.column_names.index("title")
    run.pairs.write_table(name, pairs.set_column(at, "title", pa.array(titles)))
    label_without_ray(run, {name})
    _, logits = first_shard(run)
    assert logits["logit"][0].as_py() is None
    values = logits["logit"].drop_null().to_numpy()
    assert COSINE_BIAS - COSINE_SCALE <= values.min() < values.max() <= COSINE_BIAS + COSINE_SCALE
    rejected = run.rejected_logits("tiny").read_table(name).to_pylist()
    problem = "the encoder's tokenizer knows no part of it"
    assert {row["reason"] for row in rejected} == {f"title: {problem}", f"query: {problem}"}
    assert rejected[0]["row"] == 0 and rejected[0]["title"] == "диван"


def test_the_judged_pairs_are_in_the_fingerprint_of_a_cosine(
    sentences: Path, raw_files: Path, tmp_path: Path
) -> None:
    run = run_with(tmp_path, raw_files, bi_encoder=str(sentences))
    fewer = run.config.judged.model_copy(update={"max_title_chars": 50})
    other = Run(run.config.model_copy(update={"judged": fewer}))
    assert run.label_fingerprint("tiny") != other.label_fingerprint("tiny")
    assert run.word_encoder == str(sentences)


@pytest.mark.ray
def test_the_sample_is_of_whole_queries(raw_files: Path, prepared_dir: Path) -> None:
    run = run_with(prepared_dir, raw_files, model="no-model")
    parts = [run.judged("train").read_table(n) for n in run.judged("train").shards()]
    rows = pa.concat_tables(parts)
    kept, most = kind.judged_sample(run), kind._SAMPLE_PAIRS
    assert kept.num_rows == min(rows.num_rows, most)
    queries = set(kept["query"].to_pylist())
    whole = [query for query in rows["query"].to_pylist() if query in queries]
    assert len(whole) == kept.num_rows
