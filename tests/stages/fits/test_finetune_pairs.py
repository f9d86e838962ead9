from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raydistill.config.teachers import TeacherConfig
from raydistill.errors import UserError
from raydistill.files.folder import SUCCESS
from raydistill.files.schema import JUDGED, LOGITS
from raydistill.runs.fingerprints import LABELED_BY
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import awaited, shards_to_score
from raydistill.stages import distill
from raydistill.stages.fits.finetune_pairs import finetune_pairs, learned_file, write_learned
from tests.helpers.logits import write_done
from tests.helpers.prepared import prepare_here
from tests.helpers.runs import run_config


def with_logits(run: Run, name: str, *, share: float) -> Run:
    """Logits 1, 2, 3, ... for about a share of each shard's pairs; the others have none."""
    for shard in shards_to_score(run):
        ids = shard.folder.read_table(shard.name, columns=["pair_id"])["pair_id"]
        absent = np.random.default_rng(0).random(len(ids)) >= share
        logits = pa.array(np.arange(1, len(ids) + 1, dtype=np.float32), mask=absent)
        run.logits(name).write_table(shard.target, pa.table([ids, logits], schema=LOGITS))
    run.logits(name).write_json(LABELED_BY, {"model": "abc", "source": "somewhere"})
    write_done(run, name)
    return run


@pytest.fixture
def run(raw_files: Path, tiny_bert: Path, tmp_path: Path) -> Run:
    """A prepared run in which `small` learns from `llm`, which has no logits yet."""
    teachers = {
        "llm": TeacherConfig(model=str(tiny_bert)),
        "small": TeacherConfig(base=str(tiny_bert), learns_from="llm"),
    }
    config = run_config(tmp_path / "run", raw_files, tiny_bert, teachers=teachers)
    return prepare_here(config, num_shards=3)


def with_max_pairs(run: Run, num: int) -> Run:
    finetune = run.config.finetune.model_copy(update={"max_pairs": num})
    return Run(run.config.model_copy(update={"finetune": finetune}))


def test_a_teacher_waits_for_the_one_that_it_learns_from(run: Run) -> None:
    assert (awaited(run, "small"), awaited(run, "llm"), awaited(run, "trees")) == (
        "llm", None, None,
    )  # fmt: skip
    with_logits(run, "llm", share=1)
    assert awaited(run, "small") is None


def test_a_teacher_that_has_learned_does_not_wait(run: Run) -> None:
    with_logits(run, "llm", share=1)
    done = {"fingerprint": run.finetune_fingerprint("small"), "model": "abc"}
    run.teacher("small").write_json(SUCCESS, done)
    run.logits("llm").delete_file("part-00000.parquet")  # lost, or of an increment
    run = Run(run.config)
    assert awaited(run, "small") is None
    assert not distill.run_stage("finetune", run)


def test_texts_of_shards_without_a_logit_are_not_read(run: Run) -> None:
    with_logits(run, "llm", share=0.3)
    name = "part-00001.parquet"
    ids = run.logits("llm").read_table(name)["pair_id"]
    none = pa.nulls(len(ids), pa.float32())
    run.logits("llm").write_table(name, pa.table([ids, none], schema=LOGITS))
    run.pairs.delete_file(name)
    num = write_learned(run, "small")
    (table,) = finetune_pairs(run, "small", "train")
    assert num > 0 and not set(ids.to_pylist()) & set(table["pair_id"].to_pylist())


def test_copies_of_a_pair_are_learned_once(run: Run) -> None:
    for name in run.pairs.shards():
        shard = run.pairs.read_table(name)
        run.pairs.write_table(name, pa.concat_tables([shard, shard]))
    done = (run.root / "pairs").success()
    assert done is not None
    shards = {name: 2 * num for name, num in done["shards"].items()}
    (run.root / "pairs").write_json(SUCCESS, {**done, "shards": shards})
    with_logits(run, "llm", share=1)
    write_learned(run, "small")
    (table,) = finetune_pairs(run, "small", "train")
    assert table.num_rows == len(table["pair_id"].unique()) == sum(done["shards"].values())


def test_labels_are_the_sigmoids_of_the_logits_that_there_are(run: Run) -> None:
    with_logits(run, "llm", share=0.3)
    num = write_learned(run, "small")
    (table,) = finetune_pairs(run, "small", "train")
    assert table.schema.equals(JUDGED) and table.num_rows == num
    expected = {}
    for name in run.pairs.shards():
        ids, logits = run.logits("llm").read_table(name).columns
        expected.update(zip(ids.to_pylist(), logits.to_pylist(), strict=True))
    expected = {key: 1 / (1 + np.exp(-z)) for key, z in expected.items() if z is not None}
    found = dict(zip(table["pair_id"].to_pylist(), table["label"].to_pylist(), strict=True))
    assert found == pytest.approx(expected)
    (dev,) = finetune_pairs(run, "small", "dev")
    assert dev.equals(run.judged("dev").read_table("part-00000.parquet"))


def test_at_most_max_pairs_are_drawn_in_turns_over_the_queries(run: Run) -> None:
    with_logits(run, "llm", share=1)
    num_queries = len(
        {q for n in run.pairs.shards() for q in run.pairs.read_table(n)["query"].to_pylist()}
    )
    few = with_max_pairs(run, num_queries - 5)
    write_learned(few, "small")
    (table,) = finetune_pairs(few, "small", "train")
    assert table.num_rows == len(table["query"].unique()) == num_queries - 5


def test_pairs_are_written_once(run: Run) -> None:
    with_logits(run, "llm", share=0.3)
    write_learned(run, "small")
    folder, file = learned_file(run, "small")
    before = Path(folder.path(file)).stat().st_mtime_ns
    write_learned(run, "small")
    assert Path(folder.path(file)).stat().st_mtime_ns == before


def test_a_teacher_without_a_logit_teaches_nothing(run: Run) -> None:
    with_logits(run, "llm", share=0)
    with pytest.raises(UserError, match="llm has a logit of no pair of the transfer set"):
        write_learned(run, "small")


def test_the_fingerprint_holds_the_other_teacher_and_its_model(
    run: Run, raw_files: Path, tiny_bert: Path
) -> None:
    before = run.finetune_fingerprint("small")
    with_logits(run, "llm", share=1)
    after = Run(run.config).finetune_fingerprint("small")
    run.logits("llm").write_json(LABELED_BY, {"model": "another", "source": "somewhere"})
    refitted = Run(run.config).finetune_fingerprint("small")
    assert len({before, after, refitted}) == 3
    assert with_max_pairs(run, 7).finetune_fingerprint("small") != refitted
    binary = run.config.finetune.model_copy(update={"target": "binary", "positive_weight": 2.0})
    other = Run(run.config.model_copy(update={"finetune": binary}))
    assert other.finetune_fingerprint("small") == refitted  # of human labels only


def test_max_pairs_leaves_older_fingerprints_as_they_are(run: Run, tiny_bert: Path) -> None:
    teachers = {"own": TeacherConfig(base=str(tiny_bert))}
    plain = Run(run.config.model_copy(update={"teachers": teachers}))
    assert "max_pairs" not in plain.config.finetune.fingerprint_fields()
    assert with_max_pairs(plain, 7).finetune_fingerprint("own") == plain.finetune_fingerprint("own")
