"""Small runs and their outputs."""

import re
from pathlib import Path

from raydistill.config.run_config import RunConfig
from raydistill.runs.run_folder import Run


def run_config(run_dir: Path | str, raw: Path, model: Path, **sections: object) -> RunConfig:
    """Settings of a small run on `raw_files`; default teacher: the cross-encoder `model`."""
    content: dict[str, object] = {
        "run_dir": str(run_dir),
        "pairs": {"input": [str(raw / "pairs")], "shard_rows": 512},
        "judged": {"input": [str(raw / "judged.parquet")], "relevant_at": 0.75},
        "teachers": {"tiny": {"model": str(model)}},
        "trees": {"enabled": False},
        "student": {"embedding_dim": 8, "hidden": [16, 8]},
        "ngrams": {"hash_bits": 12, "word_dim": 4},
        "train": {"epochs": 2, "judged_epochs": 2, "batch_rows": 64, "window_rows": 1_024},
        "label": {"max_length": 32, "dtype": "float32"},
        "finetune": {"max_length": 32, "epochs": 1, "batch_rows": 64},
    }
    for name, fields in sections.items():
        merged = {**content.get(name, {}), **fields} if name != "teachers" else fields  # type: ignore[dict-item]
        content[name] = merged
    return RunConfig.model_validate(content)


def with_train(run: Run, **fields: object) -> Run:
    """The same run with other settings of [train]."""
    config = run.config.train.model_validate({**run.config.train.model_dump(), **fields})
    return Run(run.config.model_copy(update={"train": config}))


def run_over(run_dir: Path, raw: Path, **sections: object) -> Run:
    """A run of `raw` without a teacher model, for the stages before `label`."""
    return Run(run_config(run_dir, raw, Path("no-model"), **sections))


def parquet_files(run: Run) -> dict[str, bytes]:
    """The bytes of the tables of a run by path, without `quarantine` and `_chunks`."""
    root = Path(run.root.uri)
    files = [p for p in root.rglob("*.parquet") if not {"quarantine", "_chunks"} & set(p.parts)]
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(files)}


def first_shards(names: list[str]) -> list[str]:
    """The shards that a gather task writes last: after a kill, some groups lack theirs."""
    return [name for name in names if re.search(r"part(-a\d{3})?-\d{5}\.parquet$", name)]
