"""bench: the latency of a bundle beside transformers, fastText and model2vec, on one thread.

Raw texts in, scores out, all in one run and in turns. What is not installed is left out, with the
reason. Writes nothing but temporary files.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from threadpoolctl import threadpool_limits

from raydistill.config.data import Column
from raydistill.errors import UserError, WorkError
from raydistill.evaluation.c_program import from_c
from raydistill.evaluation.latency import (
    BATCH,
    IN_C,
    IN_PYTHON,
    STUDENT,
    Call,
    Contestant,
    Pair,
    Row,
    Score,
    Skipped,
    best_runtimes,
    figures,
    in_process,
    make_calls,
    measure,
    table,
    text_lengths,
    to_rows,
)
from raydistill.evaluation.word_models import WORD_MODELS, words_of
from raydistill.files.inputs.input_files import expand_inputs
from raydistill.files.inputs.raw_rows import listed, read_column
from raydistill.files.inputs.readers import check_columns, read_raw
from raydistill.files.model_files import load_model, pin_model
from raydistill.serving.bundle import GOLDEN, current_bundle, read_settings
from raydistill.serving.scorer import Scorer
from raydistill.teachers.transformer.runtimes import (
    BERT_BASE,
    RUNTIMES,
    TINYBERT,
    CrossEncoder,
    Shape,
    load_cross_encoder,
    random_bert,
    runtimes,
)

logger = logging.getLogger("raydistill")
SHAPES = {"BERT-Base": BERT_BASE, "TinyBERT-4L-312": TINYBERT}
_MAX_PAIRS = 10_000
_MOST_CHARS = 300  # of a reason
_WARM_UP = 50  # calls with one pair, so that code and tables are in the caches


@dataclass(frozen=True)
class Bench:
    """What is measured."""

    bundle: Path
    teacher: str | None = None  # a folder, or what else `[teachers.x] model` may be
    seconds: float = 20.0  # of all calls; what is slow takes longer
    names: tuple[str, ...] = RUNTIMES  # runtimes of transformers
    batch: int = BATCH


@dataclass(frozen=True)
class Found:
    """The figures of all contestants."""

    rows: list[Row]
    skipped: list[Skipped]
    lengths: dict[str, int]
    batch: int

    def text(self) -> str:
        """The table and what it is of."""
        of = self.lengths
        about = (
            f"{of['pairs']:,} pairs; median bytes: query {of['query_bytes']}, "
            f"title {of['title_bytes']}; a batch is one query with {self.batch} titles.\n"
            "One thread, raw text in, score out; p50 and p99 of calls with one pair alone."
        )
        return f"{about}\n{table(self.rows, self.skipped)}"

    def to_dict(self) -> dict[str, Any]:
        """All figures for JSON."""
        return {
            "figures": figures(self.rows),
            "best_runtimes": best_runtimes(self.rows),
            "rows": [row._asdict() for row in self.rows],
            "skipped": [each._asdict() for each in self.skipped],
            "texts": self.lengths,
        }


def read_pairs(source: str, *, query: str, title: Column) -> list[Pair]:
    """The first pairs of a file, without those that lack a text; `query` "": single texts.

    Raises:
        UserError: the file or a column does not exist, or it has no pair.
    """
    columns = listed([query, title])
    (file, *_) = expand_inputs([source])
    check_columns(file, columns)
    texts = (
        pair for raw in read_raw(file, columns=columns) for pair in _texts(raw.table, query, title)
    )
    pairs = ((str(asked), str(text)) for asked, text in texts if asked is not None and text)
    found = list(islice(pairs, _MAX_PAIRS))
    if not found:
        raise UserError(f"{file.uri} has no pair")
    return found


def _texts(table: pa.Table, query: str, title: Column) -> Iterator[tuple[Any, Any]]:
    """Query (without a column: "") and title of each row."""
    titles = read_column(table, title).to_pylist()
    queries = read_column(table, query).to_pylist() if query else [""] * len(titles)
    return zip(queries, titles, strict=True)


def golden_pairs(bundle: Path) -> list[Pair]:
    """The pairs that a bundle holds.

    Raises:
        UserError: it has none.
    """
    file = current_bundle(bundle) / GOLDEN
    found = read_settings(file).get("pairs") if file.is_file() else None
    if not found:
        raise UserError(f"{bundle} has no pairs in {GOLDEN}; give --pairs FILE")
    return [(pair["query"], pair["title"]) for pair in found]


def run(bench: Bench, pairs: Sequence[Pair], *, shapes: dict[str, Shape] | None = None) -> Found:
    """Make all contestants and let them take turns; `shapes`: transformers with random weights.

    Raises:
        UserError: there is no bundle, or no teacher in its folder.
    """
    Scorer.load(bench.bundle)  # fails early
    calls = make_calls(pairs, batch=bench.batch)
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(limits=1):
        encoders = dict(_encoders(bench, pairs, shapes or SHAPES, Path(folder)))
        in_c = _in_c(bench, pairs, Path(folder))  # emits the library that a Scorer may use
        made = [
            _warm(STUDENT, IN_PYTHON, Scorer.load(bench.bundle).score, calls),
            in_c,
            *_word_models(pairs, calls),
            *_transformers(encoders, bench.names, calls),
        ]
        contestants = [one for one in made if isinstance(one, Contestant)]
        logger.info("%d contestants take turns for %g s", len(contestants), bench.seconds)
        times = measure(contestants, seconds=bench.seconds)
    return Found(
        to_rows(contestants, times, batch=bench.batch),
        [one for one in made if isinstance(one, Skipped)],
        text_lengths(pairs),
        bench.batch,
    )


def to_json(found: Found) -> str:
    """One line."""
    return json.dumps({"bench": "bench", **found.to_dict()}, ensure_ascii=False)


def _warm(model: str, runtime: str, score: Score, calls: dict[str, list[Call]]) -> Contestant:
    for call in calls["alone"][:_WARM_UP]:
        score(*call)
    score(*calls["batch"][0])
    return Contestant(model, runtime, in_process(score, calls))


def _in_c(bench: Bench, pairs: Sequence[Pair], folder: Path) -> Contestant | Skipped:
    try:
        timed = from_c(bench.bundle, pairs, batch=bench.batch, folder=folder)
    except (UserError, WorkError) as error:
        return Skipped(STUDENT, IN_C, _told(error))
    return Contestant(STUDENT, IN_C, timed)


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:_MOST_CHARS]


def _word_models(
    pairs: Sequence[Pair], calls: dict[str, list[Call]]
) -> Iterator[Contestant | Skipped]:
    for name, make in WORD_MODELS.items():
        try:
            score = make(pairs)
        except ImportError as error:
            yield Skipped(name, IN_PYTHON, f"{error.name or error} is not installed")
        except (RuntimeError, ValueError) as error:  # of fitting fastText
            yield Skipped(name, IN_PYTHON, _told(error))
        else:
            yield _warm(name, IN_PYTHON, score, calls)


def _encoders(
    bench: Bench, pairs: Sequence[Pair], shapes: dict[str, Shape], folder: Path
) -> Iterator[tuple[str, CrossEncoder]]:
    if not set(bench.names) & set(RUNTIMES):
        return
    if bench.teacher:
        source = load_model(pin_model(bench.teacher))
        yield "teacher", load_cross_encoder(source)
    words = words_of(pairs)
    for name, shape in shapes.items():
        yield name, random_bert(folder / name, shape, words=words)


def _transformers(
    encoders: dict[str, CrossEncoder], names: Sequence[str], calls: dict[str, list[Call]]
) -> Iterator[Contestant | Skipped]:
    for model, encoder in encoders.items():
        started = time.perf_counter()
        for runtime in runtimes(encoder, names):
            if runtime.score is None:
                yield Skipped(model, runtime.name, runtime.reason)
                continue
            logger.info("%s, %s: made in %.1f s", model, runtime.name,
                        time.perf_counter() - started)  # fmt: skip
            yield Contestant(model, runtime.name, in_process(runtime.score, calls))
            started = time.perf_counter()
