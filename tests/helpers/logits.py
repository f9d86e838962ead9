"""Logits from a formula, in place of a teacher."""

import pyarrow as pa

from raydistill.files.folder import SUCCESS
from raydistill.files.schema import LOGITS
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import SCORED_SPLITS, missing_shards, shards_to_score


def share_of_words(query: str, title: str) -> float:
    """Of the query's words, the share that stands in the title."""
    words = query.lower().split()
    return sum(word in title.lower() for word in words) / len(words)


def write_logits(run: Run) -> None:
    """Write logits of teacher `tiny`: 6 x (share of the query's words in the title) - 3."""
    for shard in shards_to_score(run):
        pairs = shard.folder.read_table(shard.name)
        logits = [
            6 * share_of_words(r["query"], r["title"]) - 3
            for r in pairs.select(["query", "title"]).to_pylist()
        ]
        table = pa.table([pairs["pair_id"], pa.array(logits, pa.float32())], schema=LOGITS)
        run.logits("tiny").write_table(shard.target, table)


def logits_of(run: Run) -> dict[str, bytes]:
    """The files of teacher `tiny`, by their paths below its folder."""
    folder = run.logits("tiny")
    names = [*folder.shards()] + [
        f"judged/{split}/{name}"
        for split in SCORED_SPLITS
        for name in (folder / "judged" / split).shards()
    ]
    return {name: folder.read_bytes(name) for name in names}


def label_without_ray(run: Run, names: set[str] | None = None, *, name: str = "tiny") -> None:
    """The three steps of label on some shards, or all, in this process; `name`: the teacher."""
    from raydistill.cluster.connection import Cluster
    from raydistill.stages import label

    work = label._Work.of(run, name, Cluster(num_cores=1, num_gpus=0))
    score = work.make()
    for shard in missing_shards(run, name):
        if names is None or shard.target in names:
            item = {"folder": shard.folder.uri, "name": shard.name, "target": shard.target}
            work.after(*score(*work.before(item, b"")))


def score(run: Run, name: str) -> None:
    """`label` of one teacher without actors."""
    from raydistill.stages import label

    label.record_model(run, name)
    label_without_ray(run, name=name)
    _, num_bad = label.count_rows(run, name)
    write_done(run, name, num_bad=num_bad)


def write_done(run: Run, name: str, *, num_bad: int = 0) -> None:
    """_SUCCESS.json of a teacher's logits, with the counts of the run's shards."""
    shards = shards_to_score(run)
    num_rows = sum(shard.num_rows for shard in shards)
    summary = {
        "fingerprint": run.label_fingerprint(name), "rows_in": num_rows, "quarantined": num_bad,
        "rows_out": num_rows - num_bad, "shards": len(shards), "seconds": 1.0,
    }  # fmt: skip
    run.logits(name).write_json(SUCCESS, summary)
