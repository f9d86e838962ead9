"""export: write the best student as a bundle without torch, checked against torch's scores."""

from __future__ import annotations

import logging
import time

from raydistill.files.folder import SUCCESS, Folder
from raydistill.runs.run_folder import Run
from raydistill.serving.bundle import CURRENT, bundle_name
from raydistill.student.export.student_bundle import export_bundle
from raydistill.student.export.table_type import ChosenTable

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
    name, table = made.name, made.table
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
        "table": {"type": table.name, "dev": {k: v._asdict() for k, v in table.tried.items()}},
        "rows_in": made.num_golden,
        "rows_out": made.num_golden,
        "quarantined": 0,
        "seconds": round(time.monotonic() - start_s, 1),
        "bytes": num_bytes,
    }
    run.bundle.write_json(SUCCESS, summary)
    logger.info(
        "export    %s: %.1f MB, table %s (%s), golden rows agree with torch",
        *(run.bundle / name, num_bytes / 1e6, table.name, _shown(table)),
    )


def _shown(table: ChosenTable) -> str:
    """What the types of table rank on the dev split, for the log."""
    return "; ".join(
        f"{name}: dev AUC {found.auc:.4f}, nDCG@10 {found.ndcg_10:.4f}"
        for name, found in table.tried.items()
    )


def _point_to(bundles: Folder, name: str) -> None:
    """Make a bundle the newest, atomically; then delete all but the last three."""
    pointer = bundles.read_json(CURRENT)
    listed = [pointer["bundle"], *pointer["previous"]] if pointer else []
    former = [bundle_name({"bundle": one}, where=f"{bundles}/{CURRENT}") for one in listed]
    former = [one for one in former if one != name]
    bundles.write_json(CURRENT, {"bundle": name, "previous": former[:_NUM_PREVIOUS]})
    for one in former[_NUM_PREVIOUS:]:
        (bundles / one).delete()
