from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from raydistill.candidates.catalogue import Catalogue, Sources, Texts, make_catalogue
from raydistill.candidates.mix import Mix
from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.schema import CANDIDATES

MIX = Mix(top=1, middle=1, random=1, max_rank=3)


def write_inputs(folder: Path) -> Sources:
    """Five rows of queries, of which two are one text and one is empty; nine of titles."""
    queries = ["Sofas", "oak  table", "oak table", " ", "xyz"]
    titles = ["grey sofa", "a blue sofa", "one sofa of wool", "oak table"]
    pq.write_table(pa.table({"query": queries}), folder / "queries.parquet")
    pq.write_table(pa.table({"name": titles}), folder / "titles-0.parquet")
    (folder / "titles-1.csv").write_text('name\nlamp\n""\nrug\na,b\nlamp\n')
    return Sources(
        Texts((str(folder / "queries.parquet"),), "query", 200),
        Texts((str(folder / "titles-*"),), "name", 1_000),
    )


def make(folder: Path, sources: Sources) -> tuple[Catalogue, dict[str, dict[str, int]]]:
    files = {name: sources.files(name) for name in ("query", "title")}
    work, quarantine = Folder(str(folder / "work")), Folder(str(folder / "bad"))
    counts = make_catalogue(work, files, sources=sources, quarantine=quarantine)
    return Catalogue(work), counts


def test_pairs_of_every_kind_by_hand(tmp_path: Path) -> None:
    catalogue, _ = make(tmp_path, write_inputs(tmp_path))
    pairs, num_found = catalogue.pairs(0, 3, mix=MIX)
    assert num_found == 2  # no title shares a word with xyz
    assert pairs.schema == CANDIDATES
    rows = {(r["query"], r["source"]): (r["title"], r["rank"]) for r in pairs.to_pylist()}
    assert len(rows) == pairs.num_rows == 6
    assert rows["oak table", "top"] == ("oak table", 1)
    assert ("oak table", "middle") not in rows  # nothing else shares a word
    assert rows["Sofas", "top"] == ("grey sofa", 1)  # the shortest
    assert rows["Sofas", "middle"] in {("a blue sofa", 2), ("one sofa of wool", 3)}
    assert rows["Sofas", "random"][0] in {"oak table", "lamp", "rug"}
    assert rows["xyz", "random"][1] is None


def test_bad_rows_are_counted_and_named(tmp_path: Path) -> None:
    _, counts = make(tmp_path, write_inputs(tmp_path))
    names = ("rows_in", "rows_out", "duplicates", "quarantined")
    assert [counts["query"][name] for name in names] == [5, 3, 1, 1]
    assert [counts["title"][name] for name in names] == [9, 6, 1, 2]
    bad = [
        Folder(str(tmp_path / "bad")).read_table(n)
        for n in ("queries-00000.parquet", "titles-00001.parquet")
    ]
    found = [(Path(r["source"]).name, r["row"], r["reason"]) for t in bad for r in t.to_pylist()]
    assert sorted(found) == [
        ("queries.parquet", 3, "query is empty"),
        ("titles-1.csv", 1, "title is empty"),
        ("titles-1.csv", 3, "2 fields, not 1"),
    ]


def test_a_query_draws_the_same_whatever_its_neighbours_and_the_files_order(
    tmp_path: Path,
) -> None:
    catalogue, _ = make(tmp_path, write_inputs(tmp_path))
    together, _ = catalogue.pairs(0, 3, mix=MIX)
    alone = pa.concat_tables([catalogue.pairs(at, at + 1, mix=MIX)[0] for at in range(3)])
    assert alone.equals(together)
    other = tmp_path / "other"
    other.mkdir()
    sources = write_inputs(other)
    (other / "titles-0.parquet").rename(other / "titles-2.parquet")
    assert make(other, sources)[0].pairs(0, 3, mix=MIX)[0].equals(together)


def test_another_seed_draws_others(tmp_path: Path) -> None:
    sources = write_inputs(tmp_path)
    pq.write_table(
        pa.table({"name": [f"sofa {n}" for n in range(50)]}), tmp_path / "titles-0.parquet"
    )
    catalogue, _ = make(tmp_path, sources)
    mix = Mix(top=2, middle=8, random=0, max_rank=40)
    first, second = (
        catalogue.pairs(0, 3, mix=Mix(2, 8, 0, max_rank=40, seed=s))[0] for s in (0, 1)
    )
    assert catalogue.pairs(0, 3, mix=mix)[0].equals(first) and not second.equals(first)
    tops = [table.filter(pc.equal(table["source"], "top")) for table in (first, second)]
    assert tops[0].equals(tops[1])


@pytest.mark.parametrize(
    ("column", "texts", "words"),
    [("name", [" "], "no title is left of the 1 rows"), ("text", ["sofa"], "with --title-column")],
)
def test_titles_that_cannot_be_used(
    tmp_path: Path, column: str, texts: list[str], words: str
) -> None:
    write_inputs(tmp_path)
    pq.write_table(pa.table({column: texts}), tmp_path / "other.parquet")
    sources = Sources(
        Texts((str(tmp_path / "queries.parquet"),), "query", 200),
        Texts((str(tmp_path / "other.parquet"),), "name", 1_000),
    )
    with pytest.raises(UserError, match=words):
        make(tmp_path, sources)
