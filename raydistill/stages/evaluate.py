"""evaluate: teachers, student, baseline and references on the test split (unseen queries)."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from raydistill.errors import UserError
from raydistill.evaluation.report.html import html
from raydistill.evaluation.report.markdown import markdown
from raydistill.files.folder import SUCCESS, Folder
from raydistill.runs.run_folder import METRICS, PAGE, REPORT, Run
from raydistill.stages.evaluation.figures import BASELINE, STUDENT, figures

logger = logging.getLogger("raydistill")


def evaluate_stage(run: Run) -> bool:
    """Write `report/`; False if it is complete for the current students and logits.

    Raises:
        UserError: there is no bundle yet, or the test split lacks relevant or other pairs.
    """
    if run.has_report():
        return False
    if not run.has_bundle():
        raise UserError(f"no bundle of the current student in {run.bundle}: run `export` first")
    with run.begin("evaluate"):
        _evaluate(run, wanted=run.report_fingerprint())
    return True


def _evaluate(run: Run, *, wanted: str) -> None:
    start_s = time.monotonic()
    found = figures(run)
    if run.report.exists(SUCCESS):  # a kill must not leave files of two reports as one
        run.report.delete_file(SUCCESS)
    plots = (found["tune"] or {}).get("plots", [])
    _forget_plots(run.report, but=plots)
    for name in plots:
        run.report.write_bytes(name, run.tune.read_bytes(name))
    run.report.write_json(METRICS, found)
    run.report.write_bytes(REPORT, markdown(found).encode())
    run.report.write_bytes(PAGE, html(found).encode())
    summary = {
        "fingerprint": wanted,
        "rows_in": found["num_pairs"] + found["num_unscored"],
        "rows_out": found["num_pairs"],
        "quarantined": found["num_unscored"],
        "seconds": round(time.monotonic() - start_s, 1),
    }
    run.report.write_json(SUCCESS, summary)
    warn_if_behind(found["differences"])
    logger.info("evaluate  %s", run.report.uri)


def _forget_plots(report: Folder, *, but: Sequence[str]) -> None:
    """Delete plots of an older report that the new report does not have; no other file."""
    older = (report.read_json(METRICS) or {}).get("tune") or {}
    for name in set(older.get("plots", [])) - set(but):
        if report.exists(name):
            report.delete_file(name)


def warn_if_behind(differences: Sequence[dict[str, Any]]) -> None:
    """Log a warning if the baseline on judged labels only ranks better than the student."""
    for entry in differences:
        if (entry["one"], entry["other"]) != (STUDENT, BASELINE):
            continue
        for key, name in (("auc", "AUC"), ("ndcg_10", "nDCG@10")):
            found = entry["metrics"].get(key)
            if found is not None and found["value"] < 0:
                p = "" if found["p"] is None else f", p = {found['p']:.2g}"
                logger.warning(
                    "evaluate  the baseline on judged labels only is better: %s %.4f higher%s; "
                    "label more pairs, of more queries, or give a better teacher",
                    *(name, -found["value"], p),
                )
