from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raydistill.cluster.connection import Cluster
from raydistill.config.teachers import TREES
from raydistill.data.pairs import features_of
from raydistill.errors import UserError
from raydistill.evaluation.metrics.pair_metrics import auc
from raydistill.files.folder import SUCCESS
from raydistill.files.pieces import PIECE_ROWS
from raydistill.runs.lexicon_file import load_lexicon, spec_of
from raydistill.runs.run_folder import Run
from raydistill.serving.match_features import NUM_DENSE
from raydistill.stages import label
from raydistill.stages.evaluation.scorers import reference_of, teacher_scores
from raydistill.student.fit_files import student_fit
from raydistill.teachers import trees as fitted_trees
from raydistill.teachers.judged_logits import fitted_stack, stack_of
from raydistill.teachers.shards.texts import from_bytes, to_bytes
from tests.helpers.logits import label_without_ray
from tests.helpers.runs import run_config

ONE, TWO = Cluster(num_cores=1, num_gpus=0), Cluster(num_cores=2, num_gpus=0)


@pytest.fixture
def prepared(raw_files: Path, tiny_bert: Path, prepared_dir: Path) -> Run:
    return Run(run_config(prepared_dir, raw_files, tiny_bert, trees={"enabled": True}))


def changed(run: Run, section: str, **fields: object) -> Run:
    settings = getattr(run.config, section).model_copy(update=fields)
    return Run(run.config.model_copy(update={section: settings}))


def files_of(run: Run) -> dict[str, bytes]:
    root = Path(run.logits(TREES).uri)
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.parquet")}


@pytest.mark.ray
def test_label_fits_the_trees_and_scores_every_shard_once(local_ray: None, prepared: Run) -> None:
    label_without_ray(prepared)  # the other teacher
    assert label.label_stage(prepared, TWO) and not label.label_stage(prepared, TWO)
    before = files_of(prepared)
    assert len(before) == len(files_in(prepared.logits("tiny").uri))
    done = prepared.logits(TREES).success()
    assert done is not None and done["rows_in"] == done["rows_out"] > 2_000
    _check_logits(prepared)
    _check_stack(prepared)
    lost = prepared.pairs.shards()[0]
    (Path(prepared.logits(TREES).uri) / lost).unlink()
    fitted_ns = (Path(prepared.teacher(TREES).uri) / fitted_trees.MODELS).stat().st_mtime_ns
    whole = Path(prepared.pairs.uri) / lost
    content = whole.read_bytes()
    whole.write_bytes(content[:100])
    with pytest.raises(RuntimeError, match=rf"1 shards failed 3 times: {lost}"):
        label.label_stage(prepared, ONE)
    whole.write_bytes(content)
    assert label.label_stage(prepared, ONE)
    assert files_of(prepared) == before
    assert (Path(prepared.teacher(TREES).uri) / fitted_trees.MODELS).stat().st_mtime_ns == fitted_ns


def files_in(folder: str) -> list[Path]:
    return list(Path(folder).rglob("*.parquet"))


def _check_logits(run: Run) -> None:
    name = run.pairs.shards()[0]
    pairs, logits = run.pairs.read_table(name), run.logits(TREES).read_table(name)
    assert logits["pair_id"].equals(pairs["pair_id"])
    read = run.for_trees
    features = features_of(pairs, spec=spec_of(read), lexicon=load_lexicon(read))
    assert features.dense_BF.shape[1] == NUM_DENSE + 2 * 64
    scores = fitted_trees.load_trees(run).logits(features.dense_BF[:, :NUM_DENSE])
    assert np.array_equal(logits["logit"].to_numpy(), scores)
    rows = np.arange(PIECE_ROWS + 10) % pairs.num_rows  # two pieces
    found = fitted_trees.load_trees(run).fingerprint
    _, data = fitted_trees.make_scorer(run=run, fingerprint=found)(
        {}, to_bytes(pairs.take(pa.array(rows)))
    )
    assert np.array_equal(from_bytes(data)["logit"].to_numpy(), scores[rows])


def _check_stack(run: Run) -> None:
    """The made-up shop's labels go by words that match: trees see it, a random BERT does not."""
    stack = fitted_stack(run)
    assert stack_of(run) == stack and stack.weights[TREES] > 0.9
    assert stack_of(changed(run, "soft_labels", bias=0.5)) == replace(stack, bias=0.5)
    assert reference_of(run) == "teacher ensemble"
    scores = teacher_scores(run)
    labels = run.judged("test").read_table(run.judged("test").shards()[0])["label"].to_numpy()
    found = {name: auc(split["test"], labels, relevant_at=0.75) for name, split in scores.items()}
    assert found["teacher trees"] > 0.75 > found["teacher tiny"]
    assert found["teacher ensemble"] > 0.75


def test_trees_that_were_fitted_again_add_no_logits_to_those_of_the_old_ones(prepared: Run) -> None:
    folder = prepared.teacher(TREES)
    folder.write_json(fitted_trees.MODELS, {"models": ["one", "two"]})
    first = fitted_trees.load_trees(prepared).fingerprint
    label.record_model(prepared, TREES)
    label.record_model(prepared, TREES)
    folder.write_json(fitted_trees.MODELS, {"models": ["onet", "wo"]})
    with pytest.raises(UserError, match=f"another trees .*fingerprint {first}.*; delete "):
        label.record_model(prepared, TREES)
    with pytest.raises(UserError, match=f"has trees of the fingerprint .*, not {first}"):
        fitted_trees.make_scorer(run=prepared, fingerprint=first)


def test_the_trees_of_a_run_stay_when_its_student_changes(prepared: Run) -> None:
    fingerprint = prepared.label_fingerprint(TREES)
    for other in (
        changed(prepared, "ngrams", word_dim=8, preset="bert2dnn", hash_bits=10),
        changed(prepared, "student", hidden=(4,)),
        changed(prepared, "train", learning_rate=0.1),
    ):
        assert other.label_fingerprint(TREES) == fingerprint
    for other in (
        changed(prepared, "trees", num_leaves=7),
        changed(prepared, "ngrams", units=False),
    ):
        assert other.label_fingerprint(TREES) != fingerprint


def test_without_dev_pairs_the_teachers_count_alike_and_the_trees_do_not(
    prepared: Run, caplog: pytest.LogCaptureFixture
) -> None:
    for shard in prepared.judged("dev").shards():
        (Path(prepared.judged("dev").uri) / shard).unlink()
    assert stack_of(prepared).weights == {"tiny": 1.0}
    assert "equal weights of tiny: no judged dev pair" in caplog.text


def test_a_student_without_dev_pairs_is_refused(prepared: Run) -> None:
    judged = prepared.root / "judged"
    done = judged.success()
    assert done is not None
    kept = {name: rows for name, rows in done["shards"].items() if not name.startswith("dev/")}
    judged.write_json(SUCCESS, {**done, "shards": kept})
    with pytest.raises(UserError, match=r"no judged dev pair .*judged.dev_share \(now 0.1\)"):
        student_fit(prepared, "student")
