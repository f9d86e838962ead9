"""Kinds of damage to a run: what is done, the file that `verify` names, words of its text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from raydistill.files.folder import SUCCESS
from raydistill.runs.run_folder import Run
from tests.helpers import damage


def one(run: Run, pattern: str, at: int = 0) -> Path:
    return sorted(Path(run.root.uri).glob(pattern))[at]


TINY, PART = "logits/tiny-*", "part-00001.parquet"


CASES: dict[str, tuple[Callable[[Run], Any], str, str]] = {
    "logits cut short": (
        lambda run: damage.truncate(one(run, f"{TINY}/{PART}")), f"logits/tiny/{PART}", "Parquet"
    ),
    "a bit of the logits": (
        lambda run: damage.flip(one(run, f"{TINY}/{PART}")), f"logits/tiny/{PART}", "integrity"
    ),
    "a bit of the pairs": (lambda run: damage.flip(one(run, f"pairs/{PART}")), f"pairs/{PART}", ""),
    "logits with more rows": (
        lambda run: damage.append_rows(one(run, f"{TINY}/{PART}")), f"logits/tiny/{PART}",
        "its pairs are",
    ),
    "pairs with more rows": (
        lambda run: damage.append_rows(one(run, f"pairs/{PART}")), f"pairs/{PART}",
        "_SUCCESS.json says",
    ),
    "logits of another teacher": (
        lambda run: damage.copy(one(run, f"logits/other-*/{PART}"), one(run, f"{TINY}/{PART}")),
        f"logits/tiny/{PART}", "holds logits of other-",
    ),
    "empty logits": (
        lambda run: damage.empty(one(run, f"{TINY}/{PART}")), f"logits/tiny/{PART}", "0 bytes"
    ),
    "a folder for logits": (
        lambda run: damage.to_folder(one(run, f"{TINY}/{PART}")), f"logits/tiny/{PART}",
        "is a folder",
    ),
    "a folder for pairs": (
        lambda run: damage.to_folder(one(run, f"pairs/{PART}")), f"pairs/{PART}", "is a folder"
    ),
    "logits gone": (
        lambda run: one(run, f"{TINY}/judged/dev/part-*").unlink(),
        "logits/tiny/judged/dev/part-00000.parquet", "is missing",
    ),
    "pairs gone": (
        lambda run: one(run, f"pairs/{PART}").unlink(), f"pairs/{PART}", "is missing"
    ),
    "counts of label": (
        lambda run: damage.edit(one(run, f"{TINY}/{SUCCESS}"), rows_in=5, rows_out=5),
        f"logits/tiny/{SUCCESS}", "has 9 shards of 5 rows",
    ),
    "quarantined pairs of label": (
        lambda run: damage.edit(one(run, f"{TINY}/{SUCCESS}"), quarantined=5),
        f"logits/tiny/{SUCCESS}", "the files have 0 pairs without a logit",
    ),
    "counts of prepare": (
        lambda run: damage.edit(one(run, f"pairs/{SUCCESS}"), held_out=5), f"pairs/{SUCCESS}",
        "5 held_out, its increments",
    ),
    "the fingerprint of prepare": (
        lambda run: damage.edit(one(run, f"judged/{SUCCESS}"), fingerprint="0"),
        f"judged/{SUCCESS}", "has the fingerprint 0",
    ),
    "a _SUCCESS.json that is no JSON": (
        lambda run: damage.truncate(one(run, f"{TINY}/{SUCCESS}")), f"logits/tiny/{SUCCESS}",
        "is no JSON",
    ),
    "a _SUCCESS.json of prepare without shards": (
        lambda run: one(run, f"pairs/{SUCCESS}").write_text("{}"), f"pairs/{SUCCESS}", "lacks"
    ),
    "the record of the model": (
        lambda run: one(run, f"{TINY}/_model.json").unlink(), "logits/tiny/_model.json",
        "is missing",
    ),
    "weights of the student": (
        lambda run: damage.flip(one(run, "student/student-*/weights.pt")),
        "student/student/weights.pt", "not those that were trained",
    ),
    "the lexicon": (
        lambda run: damage.flip(one(run, "lexicon/*/lexicon.npz")), "lexicon/", "CRC"
    ),
    "the model of the bundle": (
        lambda run: damage.flip(one(run, "bundle/*/model.rdm")), "bundle/", "checksum differs"
    ),
    "golden pairs": (
        lambda run: damage.truncate(one(run, "bundle/*/golden.json")), "bundle/", ""
    ),
    "the pointer to the bundle": (
        lambda run: one(run, "bundle/current.json").unlink(), "bundle/current.json", "is missing"
    ),
    "the report's page": (
        lambda run: damage.empty(one(run, "report/report.html")), "report/report.html", "is empty"
    ),
    "prepare.json": (
        lambda run: damage.truncate(one(run, "prepare.json")), "prepare.json", "is no JSON"
    ),
}  # fmt: skip
