"""A run folder in the state after `prepare`, from pairs alone, for benchmarks of `label`."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raydistill.config.run_config import RunConfig
from raydistill.data.pairs import collapse
from raydistill.files.folder import SUCCESS, Folder
from raydistill.runs.run_folder import Run


def rows_of(folder: Folder) -> dict[str, int]:
    """Name and number of rows of each shard in a folder."""
    return {name: folder.open_table(name).metadata.num_rows for name in folder.shards()}


def prepared_run(
    folder: Path, teacher: Path, pairs: tuple[list[str], list[str]], *, shard_rows: int
) -> tuple[Path, list[str]]:
    """Write the run; its run file, and the names of its shards of pairs. No judged pairs."""
    Folder(str(folder)).claim("run")
    raw = folder.with_name(f"{folder.name}.parquet")
    table = collapse(pa.table({"query": pairs[0], "title": pairs[1]}), dedupe=True)
    pq.write_table(table, raw)
    config = RunConfig.model_validate(
        {
            "run_dir": str(folder),
            "pairs": {"input": [str(raw)]},
            "judged": {"input": [str(raw)], "label": "weight"},
            "teachers": {"teacher": {"model": str(teacher)}},
            "trees": {"enabled": False},
        }
    )
    file = folder / "bench.toml"
    file.write_text(config.to_toml())
    run, shards = Run(config), {}
    for at in range(0, table.num_rows, shard_rows):
        name = f"part-{len(shards):05d}.parquet"
        shard = table.slice(at, shard_rows)
        run.pairs.write_table(name, shard)
        shards[name] = shard.num_rows
    run.write_manifest(run.manifest)
    for dataset, names in {"judged": {}, "pairs": shards}.items():
        done = {"fingerprint": run.prepare_fingerprint(dataset), "rows_in": table.num_rows}
        (run.root / dataset).write_json(SUCCESS, {**done, "shards": names})
    return file, list(shards)
