"""The check of the copies of scored pairs, which a run has where no teacher scores every pair."""

from __future__ import annotations

from raydistill.files.folder import SUCCESS
from raydistill.runs.covered import covered_folder, is_sparse
from raydistill.runs.run_folder import Run
from raydistill.stages.verification.finding import Problem, Verified, attempt, read_done
from raydistill.stages.verification.shard_rows import read_whole
from raydistill.teachers.judged_logits import stack_of


def check_covered(run: Run, out: Verified) -> None:
    """Read each copy: its rows, and the ids of its logits beside those of its pairs."""
    if not any(run.config.is_partial(name) for name in run.config.teachers):
        return
    names, _ = attempt(lambda: stack_of(run).counted)
    if names is None or not is_sparse(run, names):
        return
    folder = covered_folder(run, names)
    path = f"covered/{folder.uri.partition('?')[0].rpartition('/')[2]}"
    done, findings = read_done(folder, path=path, work="train", needs=("shards",))
    out.findings += findings
    for name, rows in (done or {"shards": {}})["shards"].items():
        pairs, problem = attempt(lambda n=name: read_whole(folder / "pairs", n))  # type: ignore[misc]
        if pairs is not None and pairs.num_rows != rows:
            problem = Problem(f"has {pairs.num_rows:,} rows, _SUCCESS.json says {rows:,}")
        for teacher in names if problem is None else ():
            logits, problem = attempt(lambda n=name, t=teacher: read_whole(folder / t, n))  # type: ignore[misc]
            if problem is None and not logits["pair_id"].equals(pairs["pair_id"]):  # type: ignore[index]
                problem = Problem(f"the logits of {teacher} are not those of its pairs")
            if problem is not None:
                break
        if problem is not None:
            # The copy of the pairs is written last: without it the others are written again.
            file = f"{path}/pairs/{name}"
            gone = [file, f"{path}/{SUCCESS}"]
            out.findings.append(problem.finding(file, work="train", removes=gone))
