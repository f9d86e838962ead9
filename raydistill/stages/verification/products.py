"""The checks of what one process or one fit wrote: teachers, lexicon, students, bundle, report."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from raydistill.config.teachers import TREES
from raydistill.errors import UserError
from raydistill.files.folder import SUCCESS, Folder
from raydistill.files.model_files import model_fingerprint
from raydistill.runs.fingerprints import LABELED_BY
from raydistill.runs.lexicon_file import load_lexicon
from raydistill.runs.run_folder import METRICS, PAGE, REPORT, Run
from raydistill.serving import bundle as bundles
from raydistill.serving.bundle import BUNDLE, CARD, CURRENT, GOLDEN, MODEL, NGRAMS
from raydistill.serving.native.layout import verify
from raydistill.stages.verification.finding import (
    MISSING,
    Finding,
    Problem,
    Verified,
    attempt,
    read_done,
    read_object,
)
from raydistill.student.fit_files import FEATURES, LAST, RESULT, WEIGHTS, load_features
from raydistill.teachers.kinds.registry import teacher_of

# Logits are of these weights, and a second fit may differ.
_BY_HAND = "restore it from a copy; or delete {} and {}, and all pairs are scored by another one"
_BUNDLE_FILES = (MODEL, BUNDLE, GOLDEN, NGRAMS, CARD)


def check_teachers(run: Run, out: Verified) -> None:
    """Compare each fine-tuned teacher with the fingerprint that was recorded when it was fitted.

    A damaged one is never removed: its logits are of these weights, and a second fit may differ.
    """
    for name, teacher in run.config.teachers.items():
        if teacher.base is None:
            continue
        path = f"teachers/{name}-{run.finetune_fingerprint(name)}"
        done, findings = read_done(run.teacher(name), path=path, work="", needs=("fingerprint",))
        for found in findings:
            out.findings.append(Finding(found.file, found.what, "restore it from a copy"))
        out.parts[f"finetune {name}"] = "to do: run `finetune`" if done is None else "complete"
        if done is None or "model" not in done:
            continue
        here, problem = attempt(partial(_fingerprint, run.teacher(name), teacher.trust_remote_code))
        if problem is None and here != done["model"]:
            problem = Problem(f"its files have the fingerprint {here}, not {done['model']}")
        if problem is not None:
            logits = f"logits/{name}-{run.label_fingerprint(name)}"
            out.findings.append(Finding(path, problem.text, _BY_HAND.format(path, logits)))


def check_trees(run: Run, out: Verified) -> None:
    """Compare the fitted trees with the record of what scored; they are never removed either."""
    if not run.config.has_trees:
        return
    path = f"teachers/{TREES}-{run.trees_fingerprint()}"
    done, findings = read_done(run.teacher(TREES), path=path, work="", needs=())
    out.findings += [Finding(one.file, one.what, "restore it from a copy") for one in findings]
    if done is None:
        return
    trees, problem = attempt(lambda: teacher_of(run, TREES).model().fingerprint)
    scored_by, _ = read_object(run.logits(TREES), LABELED_BY)
    if trees is not None and scored_by and trees != scored_by.get("model"):
        problem = Problem("these are not the trees that scored the pairs")
    if problem is not None:
        logits = f"logits/{TREES}-{run.label_fingerprint(TREES)}"
        todo = _BY_HAND.format(path, logits)
        out.findings.append(Finding(path, problem.text, todo))


def _fingerprint(folder: Folder, with_code: bool) -> str:
    return model_fingerprint(folder.download(), with_code=with_code)


def check_lexicon(run: Run, out: Verified) -> None:
    """Read the lexicon: an archive with a checksum of each array."""
    folder = run.lexicon
    file = f"lexicon/{folder.uri.partition('?')[0].rpartition('/')[2]}/lexicon.npz"
    _, problem = attempt(lambda: _load_whole(run))
    if problem is not None and problem.text != MISSING:
        out.findings.append(problem.finding(file, work="train", removes=[file]))
    elif problem is not None and run.weights_hash("student") is not None:
        out.findings.append(problem.finding(file, work="train", removes=[]))


def _load_whole(run: Run) -> None:
    """Load the lexicon; raises BadZipFile if it is no archive, or a checksum differs."""
    with zipfile.ZipFile(io.BytesIO(run.lexicon.read_bytes("lexicon.npz"))) as archive:
        if broken := archive.testzip():
            raise zipfile.BadZipFile(f"Bad CRC-32 for file {broken!r}")
    load_lexicon(run)


def check_students(run: Run, out: Verified) -> None:
    """Compare the weights of each student with their hash."""
    for role in run.roles:
        folder = run.student(role)
        path = f"student/{role}-{run.train_fingerprint(role)}"
        needs = ("fingerprint", "weights")
        done, findings = read_done(folder, path=path, work="train", needs=needs)
        out.findings.extend(findings)
        out.parts[f"train {role}"] = "to do: run `train`" if done is None else "complete"
        if done is None:
            continue
        for name, problem in _problems_of_student(folder, str(done["weights"])):
            file = f"{path}/{name}"
            gone = [] if problem.text == MISSING else [file]
            found = problem.finding(file, work="train", removes=[*gone, f"{path}/{SUCCESS}"])
            out.findings.append(found)


def _problems_of_student(folder: Folder, weights: str) -> Iterator[tuple[str, Problem]]:
    data, problem = attempt(lambda: folder.read_bytes(WEIGHTS))
    if data is not None and hashlib.blake2b(data, digest_size=8).hexdigest() != weights:
        problem = Problem("its weights are not those that were trained")
    if problem is not None:
        yield WEIGHTS, problem
    _, problem = attempt(lambda: load_features(folder))
    if problem is not None:
        yield FEATURES, problem
    result, problem = read_object(folder, RESULT)
    if problem is not None or result is None:
        yield RESULT, problem or Problem(MISSING)
    if folder.exists(LAST):
        broken, problem = attempt(lambda: _broken_part(folder.read_bytes(LAST)))
        if broken:
            problem = Problem(f"its part {broken} has another checksum")
        if problem is not None:
            yield LAST, problem


def _broken_part(data: bytes) -> str | None:
    """The first part of an archive whose checksum differs; torch writes weights as archives."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.testzip()


def check_bundle(run: Run, out: Verified) -> None:
    """Check the newest bundle: its pointer, its files, and the checksum of its model."""
    needs = ("fingerprint", "bundle", "weights")
    done, findings = read_done(run.bundle, path="bundle", work="export", needs=needs)
    out.findings.extend(findings)
    if done is None:
        out.parts["export"] = "to do: run `export`"
        return
    out.parts["export"] = "complete"
    name, success = str(done["bundle"]), f"bundle/{SUCCESS}"
    pointer, problem = read_object(run.bundle, CURRENT)
    if problem is None and (pointer is None or pointer.get("bundle") != name):
        problem = Problem(
            MISSING if pointer is None else f"names {pointer.get('bundle')}, not {name}"
        )
    if problem is not None:
        file = f"bundle/{CURRENT}"
        gone = [] if pointer is None and problem.text == MISSING else [file]
        out.findings.append(problem.finding(file, work="export", removes=[*gone, success]))
    folder = run.bundle / name
    for file, problem in _problems_of_bundle(folder, name):
        there = set(folder.files())
        ours = [f"bundle/{name}/{one}" for one in _BUNDLE_FILES if one in there]
        where = f"bundle/{name}/{file}"
        out.findings.append(problem.finding(where, work="export", removes=[*ours, success]))
        break  # all of its files are made again
    wanted = run.train_fingerprint("student"), run.weights_hash("student")
    if (done["fingerprint"], done["weights"]) != wanted:
        out.parts["export"] = "to do: the student is another one; run `export`"
    elif done.get("settings") != run.config.export.fingerprint_fields():
        out.parts["export"] = "to do: the settings are others; run `export`"


def _problems_of_bundle(folder: Folder, name: str) -> Iterator[tuple[str, Problem]]:
    there = set(folder.files())
    absent = [file for file in (MODEL, BUNDLE, GOLDEN, CARD) if file not in there]
    if absent:
        yield absent[0], Problem(MISSING)
        return
    local = folder.download()
    for file, check in (
        (BUNDLE, lambda: bundles.read_bundle(local)),
        (MODEL, lambda: verify(np.fromfile(local / MODEL, np.uint8))),
        (GOLDEN, lambda: _check_json(local / GOLDEN)),
        (NGRAMS, lambda: bundles.read_ngrams(local)),
        (CARD, lambda: _check_card(local, name)),
    ):
        _, problem = attempt(check)
        if problem is not None:
            yield file, Problem(problem.text.replace(f"{local}/", ""), problem.is_damage)


def _check_json(file: Path) -> None:
    json.loads(file.read_bytes())


def _check_card(folder: Path, fingerprint: str) -> None:
    """Raise UserError unless the card is of the bundle."""
    if f"<!-- fingerprint {fingerprint} -->" not in (folder / CARD).read_text():
        raise UserError("is not the card of this bundle")


def check_report(run: Run, out: Verified) -> None:
    """Check that the report's files exist and are whole."""
    done, findings = read_done(run.report, path="report", work="evaluate", needs=("fingerprint",))
    out.findings.extend(findings)
    if done is None:
        out.parts["evaluate"] = "to do: run `evaluate`"
        return
    is_current = done["fingerprint"] == run.report_fingerprint()
    others = "to do: students, logits or settings are others; run `evaluate`"
    out.parts["evaluate"] = "complete" if is_current else others
    there, success = set(run.report.files()), f"report/{SUCCESS}"
    for name in (METRICS, REPORT, PAGE):
        problem = None if name in there else Problem(MISSING)
        if name == METRICS and name in there:
            _, problem = read_object(run.report, METRICS)
        elif name in there and not run.report.read_bytes(name):
            problem = Problem("is empty")
        if problem is not None:
            file = f"report/{name}"
            gone = [file] if name in there else []
            out.findings.append(problem.finding(file, work="evaluate", removes=[*gone, success]))
