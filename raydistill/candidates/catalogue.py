"""Raw files of queries and of titles to the catalogue from which candidates are drawn; no Ray.

Input: files. Output: a folder with the distinct clean texts of both, in the order of their hashes
(so a shard of queries is a random sample), and an index of the titles. Both are memory-mapped: the
processes of a machine share one copy.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydistill.candidates.mix import KINDS, Mix, choose
from raydistill.candidates.search_terms import search_terms
from raydistill.candidates.title_index import TitleIndex, build_index
from raydistill.config.data import Column, PairsConfig
from raydistill.data.clean_rows import read_clean
from raydistill.data.manifest import RawFile, read_identities
from raydistill.errors import UserError
from raydistill.files.folder import SUCCESS, Folder
from raydistill.files.inputs.input_files import expand_inputs
from raydistill.files.inputs.raw_rows import one_chunk
from raydistill.files.schema import CANDIDATES
from raydistill.serving.text.hashing import hash_texts

TEXTS = ("query", "title")
_PLURAL = {"query": "queries", "title": "titles"}
_TERM_ROWS = 65_536  # titles whose terms are Python strings at the same time


@dataclass(frozen=True)
class Texts:
    """One of the two inputs: files, column or columns, and the maximum length of a text."""

    input: tuple[str, ...]
    column: Column
    max_chars: int


@dataclass(frozen=True)
class Sources:
    """The inputs of queries and titles, and how both are cleaned."""

    query: Texts
    title: Texts
    lowercase: bool = False
    csv: Mapping[str, str] = field(default_factory=dict)  # delimiters of text files

    def of(self, name: str) -> Texts:
        """The input of "query" or "title"."""
        return self.query if name == "query" else self.title

    def settings(self) -> dict[str, Any]:
        """The settings that change the candidates, without the files' contents."""
        found: dict[str, Any] = {"lowercase": self.lowercase}
        if self.csv:
            found["csv"] = dict(self.csv)
        for name in TEXTS:
            found[f"{name}_column"] = self.of(name).column
            found[f"max_{name}_chars"] = self.of(name).max_chars
        return found

    def files(self, name: str) -> list[RawFile]:
        """The files of an input with their digests.

        Raises:
            UserError: an input matches nothing, or a file lacks the column.
        """
        texts = self.of(name)
        hint = f"name it with --{name}-column"
        found = expand_inputs(texts.input)
        columns: dict[str, Column] = {name: texts.column}
        csv = dict(self.csv)
        raw = [RawFile(f.uri, f.size_bytes, f.mtime_ns, columns, csv=csv) for f in found]
        return read_identities(raw, hint=hint)

    def rules(self) -> PairsConfig:
        """The cleaning rules, as in `prepare`."""
        return PairsConfig.model_validate(
            {
                "input": "",
                "lowercase": self.lowercase,
                "max_query_chars": self.query.max_chars,
                "max_title_chars": self.title.max_chars,
            }
        )


def make_catalogue(
    target: Folder,
    files: Mapping[str, Sequence[RawFile]],
    *,
    sources: Sources,
    quarantine: Folder,
) -> dict[str, dict[str, int]]:
    """Write the distinct queries and titles and the index; returns the row counts of both.

    Memory: about three times the bytes of the titles, plus 100 MB for 1.4 million titles.

    Raises:
        UserError: no query or no title is left after cleaning.
    """
    target.delete()
    counts = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in TEXTS:
            texts, counts[name] = _read_texts(
                name, files[name], rules=sources.rules(), quarantine=quarantine
            )
            _write_texts(Path(scratch) / f"{name}.arrow", texts)
        (Path(scratch) / "index").mkdir()
        build_index(Path(scratch) / "index", _terms_of(texts))
        target.upload(Path(scratch))
    target.write_json(SUCCESS, counts)
    return counts


def _read_texts(
    name: str, files: Sequence[RawFile], *, rules: PairsConfig, quarantine: Folder
) -> tuple[pa.LargeStringArray, dict[str, int]]:
    """The distinct clean texts of all files, sorted by their hashes; and row counts."""
    parts: list[pa.Table] = []
    rows_in = quarantined = 0
    for number, file in enumerate(files):
        rejects: list[pa.Table] = []
        for rows in read_clean(file, rules):
            rejects.append(rows.rejects)
            rows_in += rows.num_rows
            texts = one_chunk(rows.pairs[name])
            parts.append(
                pa.table({"key": hash_texts(texts), "text": texts.cast(pa.large_string())})
            )
        bad = pa.concat_tables(rejects) if rejects else None
        if bad is not None and bad.num_rows:
            quarantined += bad.num_rows
            quarantine.write_table(f"{_PLURAL[name]}-{number:05d}.parquet", bad)
    distinct = _distinct(parts)
    if not len(distinct):
        raise UserError(
            f"no {name} is left of the {rows_in:,} rows of {files[0].uri}"
            f"{' and the other files' if len(files) > 1 else ''}: {quarantined:,} are in "
            f"{quarantine} with the reason"
        )
    duplicates = rows_in - quarantined - len(distinct)
    return distinct, {
        "rows_in": rows_in,
        "rows_out": len(distinct),
        "duplicates": duplicates,
        "quarantined": quarantined,
    }


def _distinct(parts: Sequence[pa.Table]) -> pa.LargeStringArray:
    if not parts:
        return pa.array([], pa.large_string())
    table = pa.concat_tables(parts).sort_by([("key", "ascending"), ("text", "ascending")])
    texts = one_chunk(table["text"])
    if not len(texts):
        return texts
    is_new = pc.not_equal(texts[1:], texts[:-1]).to_numpy(zero_copy_only=False)
    return texts.filter(pa.array(np.concatenate([[True], is_new])))


def _write_texts(path: Path, texts: pa.LargeStringArray) -> None:
    """Write one batch, so that a text is read by its index without reading others."""
    table = pa.record_batch([texts], names=["text"])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_batch(table)


def _terms_of(titles: pa.LargeStringArray) -> Iterator[str]:
    for at in range(0, len(titles), _TERM_ROWS):
        yield from search_terms(titles[at : at + _TERM_ROWS]).to_pylist()


class Catalogue:
    """The output of `make_catalogue`, opened on this machine."""

    def __init__(self, folder: Folder) -> None:
        """Files in an object store are copied to this machine's cache once."""
        place = folder.download()
        self.queries, self.titles = (_open_texts(place / f"{name}.arrow") for name in TEXTS)
        self._index = TitleIndex(place / "index")

    def pairs(self, start: int, stop: int, *, mix: Mix) -> tuple[pa.Table, int]:
        """Candidates of the queries start..stop (exclusive); and the number of queries with a hit.

        The random draw for a query depends on its text and the seed, not on other queries.
        """
        queries = self.queries[start:stop].cast(pa.string())
        seeds = hash_texts(queries)
        terms = search_terms(queries).to_pylist()
        chosen, num_found = [], 0
        for seed, text in zip(seeds.tolist(), terms, strict=True):
            ranked = self._index.search(text, limit=mix.num_ranks)
            num_found += len(ranked) > 0
            rng = np.random.default_rng([mix.seed, seed])
            chosen.append(choose(ranked, num_titles=len(self.titles), mix=mix, rng=rng))
        rows, kinds, ranks = (np.concatenate(parts) for parts in zip(*chosen, strict=True))
        lengths = [len(found[0]) for found in chosen]
        places = np.repeat(np.arange(len(queries)), lengths)
        columns = [
            queries.take(pa.array(places)),
            self.titles.take(pa.array(rows)).cast(pa.string()),
            pa.array(KINDS).take(pa.array(kinds)),
            pa.array(ranks, mask=ranks == 0),
        ]
        return pa.table(columns, schema=CANDIDATES), num_found


def _open_texts(path: Path) -> pa.LargeStringArray:
    return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)["text"]
