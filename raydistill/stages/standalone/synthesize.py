"""synthesize: raw files of a fictitious shop, shard by shard, in constant memory."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass
from functools import partial

from raydistill.cluster.tasks import Item, run_tasks
from raydistill.demo.shop import Shop
from raydistill.errors import UserError
from raydistill.files.folder import SUCCESS, Folder
from raydistill.files.retry import log_counts
from raydistill.progress import Progress
from raydistill.runs.lease import Lease

logger = logging.getLogger("raydistill")
JUDGED_FILE, _BEGUN, _KIND = "judged.parquet", "_shop.json", "shop"


@dataclass(frozen=True)
class ShopSize:
    """The amount of data and the seed; equal values give equal bytes."""

    num_pairs: int
    num_judged: int
    shard_rows: int
    seed: int


def is_there(output: str, size: ShopSize) -> bool:
    """Whether the shop is complete.

    Raises:
        UserError: the folder has a shop of another size or seed.
    """
    folder = Folder(output)
    folder.check_claim(_KIND)
    begun = folder.read_json(_BEGUN)
    if begun is not None and begun != asdict(size):
        raise UserError(f"{output} holds another shop ({begun}); give another folder")
    return folder.success() is not None


def run(output: str, size: ShopSize) -> None:
    """Write `pairs/part-*.parquet` and `judged.parquet` to `output`."""
    folder = Folder(output)
    folder.claim(_KIND)
    with Lease(folder / "_leases", "synthesize"):
        if not is_there(output, size):
            _make(folder, size)
    log_counts("synthesize")


def _make(folder: Folder, size: ShopSize) -> None:
    folder.write_json(_BEGUN, asdict(size))
    start_s = time.monotonic()
    folder.write_table(JUDGED_FILE, _shop(size).judged_pairs(num_rows=size.num_judged))
    items = [
        {"shard": shard, "rows": min(size.shard_rows, size.num_pairs - start)}
        for shard, start in enumerate(range(0, size.num_pairs, size.shard_rows))
    ]
    progress = Progress("synthesize", num_items=len(items), num_rows=size.num_pairs, unit="files")
    for result in run_tasks(items, partial(_write_shard, uri=folder.uri, size=size), cpus=1):
        progress.add(rows=result["rows"])
    seconds = round(time.monotonic() - start_s, 1)
    folder.write_json(
        SUCCESS, {"size": asdict(size), "rows_out": size.num_pairs, "seconds": seconds}
    )


def _write_shard(item: Item, *, uri: str, size: ShopSize) -> Item:
    pairs = _shop(size).transfer_pairs(item["shard"], num_rows=item["rows"])
    (Folder(uri) / "pairs").write_table(f"part-{item['shard']:05d}.parquet", pairs)
    return {"rows": pairs.num_rows}


_SHOPS: dict[int, Shop] = {}  # by seed: a worker process builds the shop once


def _shop(size: ShopSize) -> Shop:
    if size.seed not in _SHOPS:
        _SHOPS[size.seed] = Shop.build(seed=size.seed)
    return _SHOPS[size.seed]
