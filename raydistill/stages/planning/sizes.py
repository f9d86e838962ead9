"""How many pairs a run has: exact where a stage has counted them, else from footers or bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raydistill.data.bucket_layout import make_layout
from raydistill.data.manifest import RawFile, find_files
from raydistill.data.prepare_steps import plan_parts
from raydistill.errors import UserError
from raydistill.files.inputs.formats import TEXT_FORMATS
from raydistill.files.uris import open_uri
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import SCORED_SPLITS

_HEAD_BYTES = 1 << 20  # 1 MiB of a text file tells the bytes of a line


@dataclass(frozen=True)
class Sizes:
    """Numbers of pairs: `source` says where they are from; `is_exact`: counted, not estimated."""

    num_raw: int  # raw rows of the transfer set
    num_pairs: int  # distinct pairs of it
    num_judged: dict[str, int]  # by split
    num_shards: int
    source: str
    is_exact: bool

    @property
    def num_scored(self) -> int:
        """The pairs that each teacher scores."""
        return self.num_pairs + sum(self.num_judged.get(split, 0) for split in SCORED_SPLITS)

    def scaled(self, num_pairs: int, *, shard_rows: int) -> Sizes:
        """The sizes with another number of raw pairs; the share of distinct ones stays."""
        share = self.num_pairs / max(self.num_raw, 1)
        distinct = round(num_pairs * share) if self.is_exact else num_pairs
        shards = make_layout(distinct, shard_rows=shard_rows, first=None, increment=0)
        found = f"--pairs {num_pairs:,}"
        if self.is_exact:
            found += f", {share:.1%} of them distinct and not held out as in {self.source}"
        return Sizes(
            num_pairs, distinct, self.num_judged, shards.num_buckets, found, is_exact=False
        )


def sizes_of(run: Run, *, num_pairs: int | None) -> Sizes:
    """The sizes of a run; `num_pairs`: raw rows of the transfer set to plan for instead.

    Raises:
        UserError: the number of rows cannot be estimated.
    """
    found = _counted(run) or _estimated(run, num_pairs)
    if num_pairs is None:
        return found
    return found.scaled(num_pairs, shard_rows=run.config.pairs.shard_rows)


def _counted(run: Run) -> Sizes | None:
    """The sizes that `prepare` counted; None if it is not complete."""
    done = {name: (run.root / name).success() for name in run.config.datasets}
    pairs = done["pairs"]
    if pairs is None or None in done.values():
        return None
    judged: dict[str, int] = {}
    for split in ("train", *SCORED_SPLITS):
        shards = (done.get(run.config.source_of(split)) or {"shards": {}})["shards"]
        rows = [num for name, num in shards.items() if name.startswith(f"{split}/")]
        judged[split] = sum(rows)
    return Sizes(
        pairs["rows_in"], pairs["rows_out"], judged, len(pairs["shards"]),
        f"{run.pairs}/_SUCCESS.json", is_exact=True,
    )  # fmt: skip


def _estimated(run: Run, num_pairs: int | None) -> Sizes:
    config = run.config
    if num_pairs is None:
        num, source = _num_rows(find_files(config.pairs), option="--pairs")
    else:
        num, source = num_pairs, ""
    judged: dict[str, int] = {}
    if config.judged is not None:
        num_judged, _ = _num_rows(find_files(config.judged), option="a judged file of known rows")
        shares = {split: config.judged.share(split) for split in SCORED_SPLITS}
        judged = {split: round(share * num_judged) for split, share in shares.items()}
        judged["train"] = num_judged - sum(judged.values())
    layout = make_layout(num, shard_rows=config.pairs.shard_rows, first=None, increment=0)
    return Sizes(num, num, judged, layout.num_buckets, source, is_exact=False)


def _num_rows(files: Sequence[RawFile], *, option: str) -> tuple[int, str]:
    """Raw rows of files, and where the number is from."""
    stored = [file for file in files if file.input.format == "parquet"]
    texts = [file for file in files if file.input.format in TEXT_FORMATS]
    others = [file for file in files if file not in stored and file not in texts]
    packed = [file for file in texts if file.input.codec]
    if others or packed:
        first = (others + packed)[0].uri
        raise UserError(
            f"{first} does not tell its number of rows without being read: give {option} N, or run "
            "`prepare` first"
        )
    num = sum(part["rows"] for part in plan_parts(stored)) if stored else 0
    sources = ["Parquet footers"] if stored else []
    if texts:
        num_bytes = sum(file.size_bytes for file in texts)
        num += round(num_bytes / _line_bytes(texts[0]))
        sources.append(f"{num_bytes:,} bytes of text, by the lines of {texts[0].uri}")
    return num, " and ".join(sources)


def _line_bytes(file: RawFile) -> float:
    """The mean bytes of a line at the head of a text file."""
    filesystem, path = open_uri(file.uri)
    with filesystem.open_input_stream(path, compression=None) as stream:
        head = bytes(stream.read(_HEAD_BYTES))
    return len(head) / max(head.count(b"\n"), 1)
