"""What a fit reads of its run, and what it leaves there."""

from pathlib import Path

import pytest

from raydistill.errors import UserError
from raydistill.runs.run_folder import Run
from raydistill.student import fit_files
from tests.helpers.fits import start


def test_the_plan_has_every_pair_and_no_judged_one(labeled: Run) -> None:
    # Shards of the dev and test splits have the same names as those of the pairs.
    rows = {n: labeled.pairs.read_table(n).num_rows for n in labeled.pairs.shards()}
    assert fit_files.student_fit(labeled, "student").shards == rows


def test_missing_logits_are_named(labeled: Run) -> None:
    name = labeled.pairs.shards()[0]
    (Path(labeled.logits("tiny").uri) / name).unlink()
    with pytest.raises(UserError, match=r"tiny has not scored 1 of the shards: run `label` first"):
        fit_files.student_fit(labeled, "student")


def test_what_makes_another_student(labeled: Run) -> None:
    def with_(section: str, **fields: object) -> Run:
        changed = getattr(labeled.config, section).model_copy(update=fields)
        return Run(labeled.config.model_copy(update={section: changed}))

    base = labeled.student("student").uri
    assert with_("soft_labels", temperature=2.0).student("student").uri != base
    assert with_("ngrams", preset="bert2dnn").student("student").uri != base
    assert with_("train", num_workers=4).student("student").uri == base
    assert with_("train", metric="ndcg_10").student("student").uri != base
    assert with_("train", metric="auc").student("student").uri == base  # the default
    judged = labeled.student("judged_only").uri
    assert with_("soft_labels", temperature=2.0).student("judged_only").uri == judged


def test_a_fit_without_its_result_says_what_to_do(labeled: Run) -> None:
    fit, _ = start(labeled)
    with pytest.raises(UserError, match=r"student.* has no result\.json, which `train` writes"):
        fit_files.write_success(fit, seconds=1.0)
    assert fit.output.success() is None
