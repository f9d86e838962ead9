"""candidates: a query list and a title catalogue to pairs for `[pairs] input`.

One task cleans both and builds the index; then each shard of queries is a task. A shard that exists
is complete. The same files and settings give the same bytes for any number of workers.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pyarrow.compute as pc

from raydistill.candidates.catalogue import TEXTS, Catalogue, Sources, make_catalogue
from raydistill.candidates.mix import KINDS, Mix
from raydistill.cluster.tasks import Item, run_tasks
from raydistill.data.manifest import RawFile
from raydistill.errors import UserError
from raydistill.files.folder import SUCCESS, Folder
from raydistill.files.inputs.input_files import is_inside, may_hold
from raydistill.files.retry import log_counts
from raydistill.progress import Progress
from raydistill.runs.fingerprints import fingerprint
from raydistill.runs.lease import Lease

logger = logging.getLogger("raydistill")
_BEGUN, _KIND = "_candidates.json", "candidates"


@dataclass(frozen=True)
class Plan:
    """Inputs, settings and output folder of one command."""

    output: Folder
    sources: Sources
    mix: Mix
    files: Mapping[str, Sequence[RawFile]]
    shard_queries: int

    @property
    def work(self) -> Folder:
        """The catalogue during the command; the name is hidden from `[pairs] input`."""
        return self.output / "_catalogue"

    @property
    def quarantine(self) -> Folder:
        """Rows of the inputs that cannot be used."""
        return self.output / "_quarantine"

    def settings(self) -> dict[str, Any]:
        """All settings that determine the bytes of the output."""
        return {
            **self.sources.settings(),
            **asdict(self.mix),
            "shard_queries": self.shard_queries,
            "files": {
                name: sorted(list(file.identity) for file in files)
                for name, files in self.files.items()
            },
        }


def make_plan(output: str, *, sources: Sources, mix: Mix, shard_queries: int) -> Plan:
    """Check the input files and the output folder.

    Raises:
        UserError: an input cannot be used, or the output was begun with other inputs or settings.
    """
    files = {name: sources.files(name) for name in TEXTS}
    plan = Plan(Folder(output), sources, mix, files, shard_queries)
    begun, mine = plan.output.read_json(_BEGUN), plan.settings()
    if begun is not None and begun != mine:
        changed = [name for name in mine if begun.get(name) != mine[name]]
        raise UserError(
            f"{output} holds candidates made with other {', '.join(changed)}; restore them or "
            "give another --output"
        )
    plan.output.check_claim(_KIND)
    for name in TEXTS:
        for pattern in sources.of(name).input:
            if is_inside(pattern, plan.output.uri) or may_hold(pattern, plan.output.uri):
                raise UserError(
                    f"the input {pattern} and the output {output} overlap; give another --output"
                )
    return plan


def is_there(plan: Plan) -> bool:
    """Whether all candidates are complete."""
    return plan.output.success() is not None


def run(plan: Plan, *, take_over: bool = False) -> dict[str, Any]:
    """Write `part-*.parquet` to the output; returns the counts.

    Raises:
        UserError: no query or no title is left after cleaning, or another job holds the lease and
            `take_over` is not set.
    """
    plan.output.claim(_KIND)
    with Lease(plan.output / "_leases", "candidates", take_over=take_over):
        return plan.output.success() or _make(plan)


def _make(plan: Plan) -> dict[str, Any]:
    start_s = time.monotonic()
    plan.output.write_json(_BEGUN, plan.settings())
    counts = _catalogue_counts(plan)
    for name, rows in counts.items():
        logger.info(
            "candidates %s rows: %s in = %s out + %s duplicates + %s quarantined",
            name, *(f"{value:,}" for value in rows.values()),
        )  # fmt: skip
    totals, shards = _make_shards(plan, num_queries=counts["query"]["rows_out"])
    summary = {
        "fingerprint": fingerprint("candidates", plan.settings()),
        "rows_out": sum(shards.values()),
        **{kind: totals[kind] for kind in KINDS},
        "queries_without_a_hit": totals["without"],
        "seconds": round(time.monotonic() - start_s, 1),
        **counts,
        "shards": shards,
    }
    plan.output.write_json(SUCCESS, summary)
    plan.work.delete()
    log_counts("candidates")
    return summary


def _catalogue_counts(plan: Plan) -> dict[str, dict[str, int]]:
    """Make the catalogue if it does not exist; returns the row counts of both inputs."""
    done = plan.work.success()
    if done is not None:
        return done
    work = partial(_catalogue_task, plan=plan)
    (counts,) = run_tasks([{}], work, cpus=1)
    return counts


def _catalogue_task(item: Item, *, plan: Plan) -> Item:
    return {
        **item,
        **make_catalogue(plan.work, plan.files, sources=plan.sources, quarantine=plan.quarantine),
    }


def _make_shards(plan: Plan, *, num_queries: int) -> tuple[Counter[str], dict[str, int]]:
    """Make the missing shards; returns pairs of each kind, and rows of each shard."""
    there = set(plan.output.shards())
    items: list[Item] = []
    for number, start in enumerate(range(0, num_queries, plan.shard_queries)):
        name = f"part-{number:05d}.parquet"
        stop = min(start + plan.shard_queries, num_queries)
        items.append({"name": name, "start": start, "stop": stop, "is_there": name in there})
    progress = Progress("candidates", num_items=len(items), num_rows=None, unit="shards")
    totals: Counter[str] = Counter()
    shards: dict[str, int] = {}
    for result in run_tasks(items, partial(_shard_task, plan=plan), cpus=1):
        totals.update(result["counts"])
        shards[result["name"]] = sum(result["counts"][kind] for kind in KINDS)
        progress.add(rows=shards[result["name"]])
    return totals, dict(sorted(shards.items()))


def _shard_task(item: Item, *, plan: Plan) -> Item:
    """Write one shard if it does not exist; returns its pairs of each kind."""
    name = item["name"]
    if item["is_there"]:
        table = plan.output.read_table(name, columns=["query", "source", "rank"])
        num_found = len(pc.unique(table["query"].filter(pc.is_valid(table["rank"]))))
    else:
        table, num_found = _catalogue(plan.work).pairs(item["start"], item["stop"], mix=plan.mix)
        plan.output.write_table(name, table)
    found = Counter(table["source"].to_pylist())
    num_without = item["stop"] - item["start"] - num_found
    counts = {**{kind: found[kind] for kind in KINDS}, "without": num_without}
    return {"name": name, "counts": counts}


_OPEN: dict[str, Catalogue] = {}  # by path: a worker process opens the catalogue once


def _catalogue(folder: Folder) -> Catalogue:
    if folder.uri not in _OPEN:
        _OPEN[folder.uri] = Catalogue(folder)
    return _OPEN[folder.uri]
