from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raydistill.data.pairs import collapse, features_of
from raydistill.files.folder import Folder
from raydistill.files.pieces import PIECE_ROWS, shard_pieces
from raydistill.files.schema import LOGITS
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.lexicon import Lexicon
from raydistill.student.batches import (
    Loader,
    dense_scale,
    part_steps,
    plan_windows,
    scale_features,
)
from raydistill.teachers.soft_labels import Targets, soft_labels
from tests.helpers.pairs import write_word_shards

SPEC = NgramSpec("match", 12)
LEXICON = Lexicon.from_idf(np.ones(1, np.float32))


@pytest.fixture
def store(tmp_path: Path) -> tuple[Folder, Folder, dict[str, int]]:
    return write_word_shards(tmp_path)


def seen(
    loader: Loader, shards: dict[str, int], *, num_parts: int, batch_rows: int
) -> list[list[float]]:
    """The targets of each part in one epoch, through all of its batches."""
    windows = plan_windows(shards, seed=1, epoch=0, window_rows=20)
    found: list[list[float]] = []
    for part in range(num_parts):
        batches = loader.batches(
            windows, part=part, num_parts=num_parts, batch_rows=batch_rows, seed=1
        )
        found.append([target for batch in batches for target in batch.targets_B.tolist()])
    return found


@pytest.mark.parametrize("num_parts", [1, 2, 3, 9])
@pytest.mark.parametrize("batch_rows", [1, 4, 1000])
def test_no_row_is_dropped_and_none_seen_twice(
    store: tuple[Folder, Folder, dict[str, int]], num_parts: int, batch_rows: int
) -> None:
    pairs, logits, shards = store
    # A temperature that keeps the targets of 42 pairs apart.
    loader = Loader(pairs, Targets((logits,), (1.0,), temperature=20.0), spec=SPEC, lexicon=LEXICON)
    workers = seen(loader, shards, num_parts=num_parts, batch_rows=batch_rows)
    found = [target for worker in workers for target in worker]
    expected = 1 / (1 + np.exp(-np.arange(42) / 20.0))
    assert np.allclose(sorted(found), expected, atol=1e-6)


@pytest.mark.parametrize("num_parts", [1, 2, 3, 7])
def test_all_workers_take_the_same_steps_and_agree_on_their_size(num_parts: int) -> None:
    for num_rows in (1, 5, 128, 129, 1000):
        sizes = part_steps(num_rows, num_parts=num_parts, batch_rows=64)
        assert len({len(worker) for worker in sizes}) == 1
        assert sum(map(sum, sizes)) == num_rows
        totals = [sum(worker[step] for worker in sizes) for step in range(len(sizes[0]))]
        assert max(totals) <= 64 + num_parts  # as even as whole rows allow


def test_features_and_targets_are_of_the_same_pair(
    store: tuple[Folder, Folder, dict[str, int]],
) -> None:
    pairs, logits, shards = store
    loader = Loader(pairs, Targets((logits,), (1.0,), temperature=20.0), spec=SPEC, lexicon=LEXICON)
    ids_of = {}
    for name, rows in shards.items():
        features, targets = loader.read_all({name: rows})
        for row, target in enumerate(targets.tolist()):
            ids_of[target] = features.take(np.array([row])).ids_N.tolist()
    windows = plan_windows(shards, seed=1, epoch=0, window_rows=20)
    for batch in loader.batches(windows, part=1, num_parts=2, batch_rows=4, seed=1):
        lookup, bags = batch.lookup, SPEC.num_bags
        for row, target in enumerate(batch.targets_B.tolist()):
            start, stop = lookup.offsets[row * bags], lookup.offsets[(row + 1) * bags]
            assert lookup.rows_U[lookup.slots_N[start:stop]].tolist() == ids_of[target]


def test_a_fit_goes_on_with_other_parts_where_it_was(
    store: tuple[Folder, Folder, dict[str, int]],
) -> None:
    """Two parts do the first window, three the rest: every pair once."""
    pairs, logits, shards = store
    loader = Loader(pairs, Targets((logits,), (1.0,), temperature=20.0), spec=SPEC, lexicon=LEXICON)
    windows = plan_windows(shards, seed=1, epoch=0, window_rows=20)
    found = [
        target
        for some, num_parts in ((windows[:1], 2), (windows[1:], 3))
        for part in range(num_parts)
        for batch in loader.batches(
            some, part=part, num_parts=num_parts, batch_rows=4, seed=1
        )
        for target in batch.targets_B.tolist()
    ]  # fmt: skip
    assert np.allclose(sorted(found), 1 / (1 + np.exp(-np.arange(42) / 20.0)), atol=1e-6)


def test_epochs_and_seeds_shuffle_windows() -> None:
    shards = {f"part-{n}": 10 for n in range(20)}
    plans = [
        plan_windows(shards, seed=seed, epoch=epoch, window_rows=40)
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0))
    ]
    assert plans[0] == plans[3]
    assert plans[0] != plans[2]
    for plan in plans:
        assert sorted(piece.shard for w in plan for piece in w.pieces) == sorted(shards)
    assert [w.pieces for w in plans[0]] != [w.pieces for w in plans[1]]


@pytest.mark.parametrize("num_parts", [1, 3])
def test_a_pair_without_a_logit_has_no_say(
    store: tuple[Folder, Folder, dict[str, int]], num_parts: int
) -> None:
    """It stays in the plan: no other pair moves to another batch, or is lost."""
    pairs, logits, shards = store
    loader = Loader(pairs, Targets((logits,), (1.0,)), spec=SPEC, lexicon=LEXICON)
    before = seen(loader, shards, num_parts=num_parts, batch_rows=4)
    name = "part-00002.parquet"
    table = logits.read_table(name)
    lost = soft_labels(table["logit"].to_numpy()[1:3, None], weights_M=[1.0]).tolist()
    values = pa.array(table["logit"].to_numpy(), mask=np.isin(np.arange(5), (1, 2)))
    logits.write_table(name, pa.table([table["pair_id"], values], schema=LOGITS))
    after = seen(loader, shards, num_parts=num_parts, batch_rows=4)
    assert after == [[target for target in worker if target not in lost] for worker in before]
    assert sum(map(len, before)) - sum(map(len, after)) == 2


def test_a_plan_of_other_rows_is_refused(store: tuple[Folder, Folder, dict[str, int]]) -> None:
    """Else the rows beyond the plan would be left out without a word."""
    pairs, logits, shards = store
    loader = Loader(pairs, Targets((logits,), (1.0,)), spec=SPEC, lexicon=LEXICON)
    with pytest.raises(ValueError, match="has 5 rows, 4 planned"):
        seen(loader, {**shards, "part-00002.parquet": 4}, num_parts=1, batch_rows=4)


def test_judged_pairs_have_their_label_as_target(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    raw = pa.table({"query": ["a", "b"], "title": ["x", "y"], "label": [0.25, 0.75]})
    folder.write_table("part-00000.parquet", collapse(raw, dedupe=True))
    loader = Loader(folder, Targets(), spec=SPEC, lexicon=LEXICON)
    _, targets = loader.read_all({"part-00000.parquet": 2})
    assert targets.tolist() == [0.25, 0.75]


def test_labels_that_are_logits_serve_both_losses(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    raw = pa.table({"query": ["a", "b"], "title": ["x", "y"], "label": [0.0, np.log(3)]})
    folder.write_table(
        "part-00000.parquet", raw.set_column(2, "label", [raw["label"].cast("float")])
    )
    for target, expected in (("logit", [0, np.log(3)]), ("probability", [0.5, 0.75])):
        targets = Targets(target=target, holds_logits=True)
        loader = Loader(folder, targets, spec=SPEC, lexicon=LEXICON)
        found = loader.read_all({"part-00000.parquet": 2})[1]
        assert found == pytest.approx(expected)


LARGE = 2 * PIECE_ROWS + 1_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, Folder]:
    """A shard of three pieces; pair n has one of 1,000 words, and logit n."""
    path = tmp_path_factory.mktemp("large")
    pairs, logits = Folder(str(path / "pairs")), Folder(str(path / "logits"))
    words = pa.array([f"w{at:03d}" for at in range(1_000)])
    rows, ids = np.arange(LARGE), pa.array(np.arange(LARGE))
    queries, titles = words.take(pa.array(rows % 7)), words.take(pa.array(rows % 1_000))
    pairs.write_table("a.parquet", pa.table({"pair_id": ids, "query": queries, "title": titles}))
    values = pa.array(rows.astype(np.float32))
    logits.write_table("a.parquet", pa.table([ids, values], schema=LOGITS))
    return pairs, logits


def test_windows_of_small_shards_are_what_they_were_by_shards() -> None:
    shards = {f"part-{at:05d}": 65_536 - at for at in range(21)}
    order = np.random.default_rng([5, 2]).permutation(21)
    names = [sorted(shards)[at] for at in order]
    plan = plan_windows(shards, seed=5, epoch=2, window_rows=524_288)
    assert [[str(piece) for piece in window.pieces] for window in plan] == [
        names[:8], names[8:16], names[16:],
    ]  # fmt: skip


def test_windows_of_tiny_shards_have_as_many_rows() -> None:
    shards = {f"part-{at:05d}": 1_000 + at % 3 for at in range(200)} | {"part-empty": 0}
    for epoch in range(3):
        plan = plan_windows(shards, seed=0, epoch=epoch, window_rows=10_000)
        sizes = [window.num_rows for window in plan]
        assert max(sizes) <= 10_000 and min(sizes[:-1]) > 8_900
        found = sorted(piece.shard for window in plan for piece in window.pieces)
        assert found == sorted(set(shards) - {"part-empty"})


@pytest.mark.parametrize("window_rows", [1, 65_536, 200_000, 524_288])
def test_windows_of_large_shards_are_no_larger(window_rows: int) -> None:
    shards = {"part-00000": 1_048_576, "part-00001": 1_000_001, "part-00002": 30}
    plan = plan_windows(shards, seed=0, epoch=0, window_rows=window_rows)
    assert max(window.num_rows for window in plan) <= max(window_rows, PIECE_ROWS)
    pieces = sorted(piece for window in plan for piece in window.pieces)
    assert pieces == [p for name in sorted(shards) for p in shard_pieces(name, shards[name])]


@pytest.mark.slow
@pytest.mark.parametrize("num_parts", [1, 3])
def test_every_row_of_a_large_shard_is_seen_once(
    large: tuple[Folder, Folder], num_parts: int
) -> None:
    pairs, logits = large
    targets = Targets((logits,), (1.0,), target="logit")
    loader = Loader(pairs, targets, spec=SPEC, lexicon=LEXICON)
    windows = plan_windows({"a.parquet": LARGE}, seed=0, epoch=0, window_rows=2 * PIECE_ROWS)
    assert len(windows) == 2
    found = [
        batch.targets_B
        for part in range(num_parts)
        for batch in loader.batches(
            windows, part=part, num_parts=num_parts, batch_rows=4_096, seed=0
        )
    ]
    assert (np.sort(np.concatenate(found)) == np.arange(LARGE)).all()


@pytest.mark.slow
def test_rows_of_a_piece_have_the_features_and_targets_of_the_shard(
    large: tuple[Folder, Folder],
) -> None:
    pairs, logits = large
    targets = Targets((logits,), (1.0,), target="logit")
    loader = Loader(pairs, targets, spec=SPEC, lexicon=LEXICON)
    features, targets_B = loader.read_all({"a.parquet": LARGE})
    whole = features_of(pairs.read_table("a.parquet"), spec=SPEC, lexicon=LEXICON)
    for name in ("ids_N", "offsets", "dense_BF"):
        assert np.array_equal(getattr(features, name), getattr(whole, name)), name
    assert np.array_equal(targets_B, np.arange(LARGE))


def test_every_piece_of_the_logits_is_checked(large: tuple[Folder, Folder], tmp_path: Path) -> None:
    pairs, logits = large
    other, table = Folder(str(tmp_path)), logits.read_table("a.parquet")
    ids = table["pair_id"].to_numpy().copy()
    ids[-1] += 1
    wrong = table.set_column(0, "pair_id", pa.array(ids))
    longer = pa.concat_tables([table, table.slice(0, 1)])
    for content in (wrong, longer):
        other.write_table("a.parquet", content)
        loader = Loader(pairs, Targets((other,), (1.0,)), spec=SPEC, lexicon=LEXICON)
        with pytest.raises(ValueError, match="has logits of other pairs than the shard"):
            loader.piece(shard_pieces("a.parquet", LARGE)[-1])


@pytest.mark.slow
def test_the_scale_is_that_of_rows_of_all_shards(large: tuple[Folder, Folder]) -> None:
    """At most 65,536 of them: every third of 132,072 + 5."""
    small = large[0].read_table("a.parquet").slice(0, 5)
    large[0].write_table("b.parquet", small)
    loader = Loader(large[0], Targets(), spec=SPEC, lexicon=LEXICON)
    found = scale_features(loader, {"a.parquet": LARGE, "b.parquet": 5})
    whole = pa.concat_tables([large[0].read_table("a.parquet"), small])
    rows = whole.take(pa.array(np.arange(0, LARGE + 5, 3)))
    expected = dense_scale(features_of(rows, spec=SPEC, lexicon=LEXICON).dense_BF)
    assert rows.num_rows <= PIECE_ROWS
    for name, values in expected.items():
        assert np.array_equal(found[name], values)


def test_a_feature_that_one_shard_has_gets_a_scale(tmp_path: Path) -> None:
    folder, texts = Folder(str(tmp_path)), [["sofa"] * 40, ["sofa"] * 40, ["sofa", "unheard"] * 20]
    for name, queries in zip("abc", texts, strict=True):
        folder.write_table(f"{name}.parquet", pa.table({"query": queries, "title": ["sofa"] * 40}))
    shards = {f"{name}.parquet": 40 for name in "abc"}
    loader = Loader(folder, Targets(), spec=SPEC, lexicon=LEXICON)
    found = scale_features(loader, shards)["dense_mean"]
    # The first feature is the share of the query's words in the title: 100 of 120 queries have all.
    assert found[0] == pytest.approx(100 / 120)
