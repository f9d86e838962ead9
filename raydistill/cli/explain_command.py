"""The commands `explain` and `neighbors`: what drove a score, and the nearest n-grams of a word."""

from __future__ import annotations

import argparse
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from raydistill.cli.options.shared_options import (
    add_csv,
    add_title,
    csv_options,
    positive,
    title_columns,
)
from raydistill.errors import UserError
from raydistill.evaluation.markup import plain, plain_json

if TYPE_CHECKING:
    from pathlib import Path

    from raydistill.serving.explanation.attribution import Driver, Explanation
    from raydistill.serving.scorer import Scorer

logger = logging.getLogger("raydistill")
_PATIENCE_S = 5.0  # of a call that need not compile: 1 s
_BAR_CHARS = 12  # of the largest value, on its side
_TOP_DRIVERS, _TOP_NEIGHBORS = 20, 10
_LEAST_TIMES = 2  # of a candidate in --pairs
_INT8 = "; layers are int8, so that the drivers add up to {:+.3f}"


def add_explain(parser: argparse.ArgumentParser) -> None:
    """The options of `explain`."""
    parser.add_argument("--bundle", required=True, help="a folder, s3://, or a hub's name")
    text = "the query and the title, or its columns; for a bundle of single texts the text alone"
    parser.add_argument("texts", nargs="+", metavar="TEXT", help=text)
    text = f"number of drivers shown (default: {_TOP_DRIVERS}; with --json all)"
    parser.add_argument("--top", type=positive, metavar="N", help=text)
    text = "each match feature by itself, not those of one fact as one"
    parser.add_argument("--features", action="store_true", help=text)
    parser.add_argument("--json", action="store_true", help="all as one line of JSON")
    parser.set_defaults(command=_run_explain)


def add_neighbors(parser: argparse.ArgumentParser) -> None:
    """The options of `neighbors`."""
    parser.add_argument("--bundle", required=True, help="a folder, s3://, or a hub's name")
    parser.add_argument("word", metavar="WORD", help="with --vectors table also two words")
    parser.add_argument("--top", type=positive, default=_TOP_NEIGHBORS, metavar="N")
    text = "words: the word vectors that the student was given; table: its trained n-grams "
    text += "(default: words, where the bundle has them)"
    parser.add_argument("--vectors", choices=("words", "table"), help=text)
    text = "find neighbors among the words of a file's pairs (default: the bundle's common words)"
    parser.add_argument("--pairs", metavar="FILE", help=text)
    parser.add_argument("--query", default="query", help="name of the column (default: query)")
    add_title(parser, default="the bundle's columns, else title")
    add_csv(parser)
    parser.add_argument("--json", action="store_true", help="all as one line of JSON")
    parser.set_defaults(command=_run_neighbors)


def _run_explain(arguments: argparse.Namespace) -> int:
    from raydistill.serving.bundle import read_ngrams
    from raydistill.serving.explanation.attribution import METHOD, Explainer

    scorer, folder = _load(arguments.bundle)
    query, title = pair_of(scorer.settings, arguments.texts)
    with _says_why_it_takes_long():
        found = Explainer(scorer, common=read_ngrams(folder) or ()).explain(query, title)
    drivers = found.drivers if arguments.features else found.in_families()
    if arguments.json:
        whole = {"query": query, "title": title, "threshold": scorer.threshold, "method": METHOD}
        whole |= {**asdict(found), "drivers": [asdict(one) for one in drivers[: arguments.top]]}
        print(plain_json(json.dumps(whole, ensure_ascii=False)))  # noqa: T201
        return 0
    top = arguments.top or _TOP_DRIVERS
    lines = [*_summary(found, threshold=scorer.threshold), "", *driver_lines(drivers, top=top)]
    print("\n".join(map(plain, lines)))  # noqa: T201
    return 0


def pair_of(settings: dict[str, Any], texts: Sequence[str]) -> tuple[str, str]:
    """Query and title of the texts on a command line; the values of several columns are joined.

    Raises:
        UserError: too few or too many texts for the bundle.
    """
    from raydistill.serving.text.columns import SEPARATOR

    columns = settings.get("title", ["title"])
    if settings.get("single_texts"):
        names, query, titles = [*columns], "", texts
    else:
        names, query, titles = ["query", *columns], texts[0], texts[1:]
    if len(titles) not in (1, len(columns)):
        wanted = " ".join(f'"{name}"' for name in names)
        what = "single texts" if settings.get("single_texts") else "pairs"
        raise UserError(f"{len(texts)} texts for a bundle of {what}; give {wanted}")
    return query, SEPARATOR.join(filter(None, titles))


def _summary(found: Explanation, *, threshold: float) -> Iterator[str]:
    """Score, logit and words of an explanation."""
    is_relevant = "relevant" if found.score >= threshold else "not relevant"
    apart = found.explained_logit - found.logit
    note = _INT8.format(found.explained_logit) if abs(apart) >= 0.0005 else ""
    if found.query_words:
        yield f"query  {' '.join(found.query_words)}"
    yield f"title  {' '.join(found.title_words) or '(no words)'}"
    yield f"score  {found.score:.4f}, {is_relevant} (from {threshold:.4f})"
    yield f"logit  {found.logit:+.3f}; without words {found.baseline_logit:+.3f}{note}"


def driver_lines(drivers: Sequence[Driver], *, top: int) -> Iterator[str]:
    """A line for each of the first drivers, with a bar; and one for the sum of the others."""
    from raydistill.serving.explanation.attribution import with_numbers

    most = max((abs(one.value) for one in drivers), default=0) or 1.0
    width = max((len(one.kind) for one in drivers[:top]), default=0)
    for one in drivers[:top]:
        note = f" [{one.note}]" if one.note else ""
        bar = _bar(one.value / most)
        yield f"{one.value:+7.3f} {bar} {one.kind.ljust(width)}  {with_numbers(one)}{note}"
    if rest := drivers[top:]:
        total = sum(one.value for one in rest)
        yield f"{total:+7.3f} {' ' * (2 * _BAR_CHARS + 1)} {len(rest)} more (--top shows them)"


def _bar(share: float) -> str:
    """A bar of `-` to the left or of `+` to the right of the middle."""
    num = round(abs(share) * _BAR_CHARS)
    left, right = ("-" * num, "") if share < 0 else ("", "+" * num)
    return f"{left.rjust(_BAR_CHARS)}|{right.ljust(_BAR_CHARS)}"


def _run_neighbors(arguments: argparse.Namespace) -> int:
    from raydistill.serving.explanation.neighbors import Neighbors

    scorer, folder = _load(arguments.bundle)
    with _says_why_it_takes_long():
        candidates = _candidates(arguments, scorer, folder)
        finder = Neighbors(scorer, candidates, vectors=arguments.vectors)
        word = finder.spelled(arguments.word)
        near = finder.nearest(word, num=arguments.top)
    if arguments.json:
        whole = {"word": word, "vectors": finder.vectors, "candidates": len(finder.candidates)}
        whole["neighbors"] = [one._asdict() for one in near]
        print(plain_json(json.dumps(whole, ensure_ascii=False)))  # noqa: T201
        return 0
    of = "word vectors" if finder.vectors == "words" else "trained n-gram embeddings"
    print(plain(f"{word}: nearest by {of}, of {len(finder.candidates):,}"))  # noqa: T201
    for one in near:
        print(plain(f"{one.cosine:+.3f}  {one.text}"))  # noqa: T201
    return 0


@contextmanager
def _says_why_it_takes_long() -> Iterator[None]:
    """Log a line if what is done here is not done after some seconds."""
    text = "the functions that read texts are compiled on their first call: once a version"
    timer = threading.Timer(_PATIENCE_S, logger.info, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _candidates(arguments: argparse.Namespace, scorer: Scorer, folder: Path) -> list[str]:
    """The n-grams of `--pairs`, or those that the bundle's files hold."""
    from raydistill.serving.bundle_check import check_settings
    from raydistill.serving.explanation.neighbors import common_ngrams, count_ngrams

    if not arguments.pairs:
        return common_ngrams(folder)
    query = "" if scorer.settings.get("single_texts") else arguments.query
    title = title_columns(arguments.title, default=scorer.settings.get("title", "title"))
    texts = _texts(arguments, [name for name in (query, *_listed(title)) if name])
    counts = count_ngrams(texts, spec=check_settings(scorer.settings))
    return sorted(text for text, num in counts.items() if num >= _LEAST_TIMES)


def _listed(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names


def _texts(arguments: argparse.Namespace, columns: list[str]) -> set[str]:
    """The distinct texts of some columns of a file."""
    from raydistill.files.inputs.input_files import expand_inputs
    from raydistill.files.inputs.raw_rows import decode, read_column
    from raydistill.files.inputs.readers import check_columns, read_raw

    found: set[str] = set()
    for file in expand_inputs([arguments.pairs], csv=csv_options(arguments)):
        check_columns(file, columns)
        for raw in read_raw(file, columns=columns):
            for name in columns:
                texts, _ = decode(read_column(raw.table, name))
                found.update(filter(None, texts.to_pylist()))
    return found


def _load(bundle: str) -> tuple[Scorer, Path]:
    """The scorer of a bundle, and its folder on this machine."""
    from raydistill.serving.scorer import Scorer, local_folder

    folder = local_folder(bundle)
    return Scorer.load(folder), folder
