"""The part of label that fits the trees on the judged pairs and scores the shards with them."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.features import Features, NgramSpec
from raydistill.judged import read_groups
from raydistill.learning import spec_of
from raydistill.lexicon import Lexicon
from raydistill.loader import Loader, Targets, features_of
from raydistill.matching import NUM_DENSE
from raydistill.metrics import auc
from raydistill.progress import Progress
from raydistill.run import Run
from raydistill.schema import LOGITS
from raydistill.shards import missing_shards, shards_to_score
from raydistill.stages.lexicon import load_lexicon, write_lexicon
from raydistill.stages.tasks import Item, run_tasks
from raydistill.storage import SUCCESS, Folder
from raydistill.teaching import TREES
from raydistill.trees import Trees, fit_trees

logger = logging.getLogger("raydistill")
MODELS = "models.json"
_MOST_THREADS = 8  # of the fit; more gain nothing on so few pairs


def run(run: Run) -> bool:
    """Fit the trees if they are not there, score the missing shards; False if nothing was left.

    Raises:
        UserError: too few judged pairs.
    """
    left, logits = missing_shards(run, TREES), run.logits(TREES)
    if not left and logits.success() is not None:
        return False
    write_lexicon(run.for_trees)
    lexicon, spec = load_lexicon(run.for_trees), spec_of(run.for_trees)
    if run.teacher(TREES).success() is None:
        (done,) = run_tasks([{}], partial(_fit, run=run, spec=spec, lexicon=lexicon), cpus=1)
        logger.info(
            "label     trees: %d a fold of %s judged pairs, dev AUC %.4f, %.0f s",
            *(done["num_trees"], f"{done['rows_in']:,}", done["dev_auc"], done["seconds"]),
        )
    work = Scorer(load_trees(run), spec, lexicon, logits)
    items = [{"folder": s.folder.uri, "name": s.name, "target": s.target} for s in left]
    num_rows = sum(shard.num_rows for shard in left)
    progress = Progress("label", num_items=len(items), num_rows=num_rows, unit="shards")
    busy_s = 0.0
    for result in run_tasks(items, work, cpus=1):
        busy_s += result["score_s"]
        progress.add(rows=result["rows"], note=TREES)
    num_all = sum(shard.num_rows for shard in shards_to_score(run))
    summary = {
        "fingerprint": run.label_fingerprint(TREES),
        "rows_in": num_all,
        "rows_out": num_all,
        "quarantined": 0,
        "seconds": round(progress.seconds, 1),
        "rows_scored": num_rows,
        "rows_per_s": round(progress.rate()) if num_rows else 0,
        "actor_us_per_pair": round(1e6 * busy_s / num_rows, 1) if num_rows else None,
    }
    logits.write_json(SUCCESS, summary)
    return True


def load_trees(run: Run) -> Trees:
    """The fitted trees of a run."""
    found = run.teacher(TREES).read_json(MODELS)
    assert found is not None, "they are fitted before they score"
    return Trees(tuple(found["models"]))


def _fit(item: Item, *, run: Run, spec: NgramSpec, lexicon: Lexicon) -> Item:
    """Fit the trees and write them; one core is asked for, as any machine has one."""
    start_s = time.monotonic()
    features_BF, labels_B = _read(run, "train", spec=spec, lexicon=lexicon)
    trees = fit_trees(
        features_BF,
        labels_B,
        groups_B=read_groups(run, "train"),
        settings=run.config.trees,
        num_threads=min(_MOST_THREADS, os.cpu_count() or 1),
    )
    dev_BF, dev_labels_B = _read(run, "dev", spec=spec, lexicon=lexicon)
    dev_auc = auc(trees.score(dev_BF), dev_labels_B, relevant_at=run.config.judged.relevant_at)
    folder = run.teacher(TREES)
    folder.write_json(MODELS, {"models": trees.models})
    summary: dict[str, Any] = {
        "fingerprint": run.trees_fingerprint(),
        "rows_in": len(labels_B),
        "rows_out": len(labels_B),
        "quarantined": 0,
        "seconds": round(time.monotonic() - start_s, 1),
        "num_trees": trees.num_trees,
        "dev_auc": dev_auc,
    }
    folder.write_json(SUCCESS, summary)
    return summary


def described(features: Features) -> NDArray[np.float32]:
    """What the trees read: how query and title match, and not which words they have.

    With the mean word vectors too they learn the shop's words: no better in a stack with a BERT,
    which knows words, and worse with few judged pairs.
    """
    return np.ascontiguousarray(features.dense_BF[:, :NUM_DENSE])


def _read(
    run: Run, split: str, *, spec: NgramSpec, lexicon: Lexicon
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the trees read of a judged split, and its labels."""
    loader = Loader(run.judged(split), Targets(), spec=spec, lexicon=lexicon)
    parts = [loader.shard(name) for name in loader.folder.shards()]
    dense = [np.empty((0, NUM_DENSE), np.float32), *(described(f) for f, _ in parts)]
    labels = [np.empty(0, np.float32), *(labels for _, labels in parts)]
    return np.concatenate(dense), np.concatenate(labels)


@dataclass(frozen=True)
class Scorer:
    """What a task needs to score a shard with the trees."""

    trees: Trees
    spec: NgramSpec
    lexicon: Lexicon
    logits: Folder

    def __call__(self, item: Item) -> Item:
        """Write the logits of one shard.

        Raises:
            UserError: a shard that cannot be read.
        """
        start_s = time.monotonic()
        columns = ["pair_id", "query", "title"]
        try:
            pairs = Folder(item["folder"]).read_table(item["name"], columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"{item['folder']}/{item['name']} cannot be read ({error}); what is scored is kept"
            ) from error
        features = features_of(pairs, spec=self.spec, lexicon=self.lexicon)
        logits = pa.array(self.trees.score(described(features)))
        table = pa.table([pairs["pair_id"], logits], schema=LOGITS)
        self.logits.write_table(item["target"], table)
        return {"rows": pairs.num_rows, "score_s": time.monotonic() - start_s}
