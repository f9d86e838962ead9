"""export: write the best student as a bundle without torch, checked against torch's scores."""

from __future__ import annotations

import logging
import time

from raydistill.evaluation.metrics.pair_metrics import ranking_name
from raydistill.files.folder import SUCCESS, Folder
from raydistill.runs.run_folder import Run
from raydistill.serving.bundle import CURRENT, bundle_name
from raydistill.student.export.stored_form import ChosenForm
from raydistill.student.export.student_bundle import export_bundle

logger = logging.getLogger("raydistill")
_NUM_PREVIOUS = 2  # bundles kept besides the newest: a server may be loading one of them


def export_stage(run: Run) -> bool:
    """Write a bundle below `bundle/` and point to it; False if the student's bundle exists.

    Raises:
        UserError: there is no student yet.
    """
    if run.has_bundle():
        return False
    with run.begin("export"):
        _export(run)
    return True


def _export(run: Run) -> None:
    start_s = time.monotonic()
    made = export_bundle(run)
    name, chosen = made.name, made.chosen
    if not run.is_whole_bundle(name):  # a complete bundle is never rewritten
        for file, data in made.files.items():
            (run.bundle / name).write_bytes(file, data)
    _point_to(run.bundle, name)
    num_bytes = sum(map(len, made.files.values()))
    summary = {
        "fingerprint": run.train_fingerprint("student"),
        "settings": run.config.export.fingerprint_fields(),
        "bundle": name,
        "weights": run.weights_hash("student"),
        "form": chosen.form._asdict(),
        "dev": _of_forms(run, chosen),
        "golden_apart": round(made.apart, 4),
        "rows_in": made.num_golden,
        "rows_out": made.num_golden,
        "quarantined": 0,
        "seconds": round(time.monotonic() - start_s, 1),
        "bytes": num_bytes,
    }
    run.bundle.write_json(SUCCESS, summary)
    is_judged = run.config.relevant_at("dev") is not None
    what = "dev AUC" if is_judged else "agreement with the teachers on dev"
    for form, found in chosen.tried.items():
        logger.info("export    %s: %s %.4f, nDCG@10 %.4f", form, what, *found)
    logger.info(
        "export    %s: %.1f MB, %s; golden scores are at most %.4f from the exact form's, which "
        "agree with torch",
        *(run.bundle / name, num_bytes / 1e6, chosen.form, made.apart),
    )


def _of_forms(run: Run, chosen: ChosenForm) -> list[dict[str, object]]:
    """What each form ranks on the dev split."""
    name = ranking_name(run.config.relevant_at("dev"))
    return [
        {**form._asdict(), name: found.ranking, "ndcg_10": found.ndcg_10}
        for form, found in chosen.tried.items()
    ]


def _point_to(bundles: Folder, name: str) -> None:
    """Make a bundle the newest, atomically; then delete all but the last three."""
    pointer = bundles.read_json(CURRENT)
    listed = [pointer["bundle"], *pointer["previous"]] if pointer else []
    former = [bundle_name({"bundle": one}, where=f"{bundles}/{CURRENT}") for one in listed]
    former = [one for one in former if one != name]
    bundles.write_json(CURRENT, {"bundle": name, "previous": former[:_NUM_PREVIOUS]})
    for one in former[_NUM_PREVIOUS:]:
        (bundles / one).delete()
