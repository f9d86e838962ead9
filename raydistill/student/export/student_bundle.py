"""A student to the files of its bundle, after a check of the scorer against torch; no Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.pieces import pieces_of, read_pieces
from raydistill.runs.lexicon_file import load_lexicon, spec_of
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import split_shards
from raydistill.serving.bundle import BUNDLE_FORMAT, bundle_files
from raydistill.serving.native.layout import aligned
from raydistill.serving.scorer import Scorer
from raydistill.student.export.common_texts import common_texts
from raydistill.student.export.forms import Forms, model_of, sample_inputs
from raydistill.student.export.golden_pairs import (
    Pairs,
    check_scores,
    explain_pairs,
    golden_pairs,
)
from raydistill.student.export.model_card import model_card
from raydistill.student.export.stored_form import ChosenForm, Form, choose_form
from raydistill.student.fit_files import load_student, load_trained_rows, student_fit
from raydistill.teachers.judged_logits import read_groups, split_targets


def bundle_settings(run: Run, role: str) -> dict[str, Any]:
    """The content of bundle.json; the baseline on judged labels only has temperature 1."""
    config = run.config
    return {
        "format": BUNDLE_FORMAT,
        "student": run.train_fingerprint(role),
        "ngrams": asdict(spec_of(run)),
        "temperature": config.soft_labels.temperature if role == "student" else 1.0,
        "threshold": 0.5,
        "max_query_chars": config.pairs.max_query_chars,
        "max_title_chars": config.pairs.max_title_chars,
        "single_texts": not config.pairs.query,
        # The columns that prepare joined; with one column nothing: `score` reads `title`.
        **({} if isinstance(config.pairs.title, str) else {"title": list(config.pairs.title)}),
    }


class Exported(NamedTuple):
    """A bundle that is not written yet."""

    name: str  # its fingerprint
    files: dict[str, bytes]
    chosen: ChosenForm
    apart: float  # the largest difference of a golden score from that of the exact form
    num_golden: int  # pairs in golden.json


def export_bundle(run: Run) -> Exported:
    """The files of the student's bundle, bundle.json last, after a check against torch.

    Raises:
        UserError: the student is not trained yet.
        RuntimeError: torch and the scorer give a golden pair different scores.
    """
    arrays, settings = bundle_arrays(run, "student"), bundle_settings(run, "student")
    pairs, columns = golden_pairs(run), arrays["embedding"].shape[1]
    check_scores(run, scorer_of(settings, arrays), pairs)
    forms = forms_of(run, settings, arrays)
    chosen = choose_form(
        run.config.export,
        columns=columns,
        score=lambda form: score_split(run, forms.scorer(form), "dev"),
        groups_B=read_groups(run, "dev"),
        relevant_at=run.config.relevant_at("dev"),
    )
    settings["threshold"] = chosen.threshold
    model = forms.model(chosen.form)
    apart = _most_apart(forms, chosen.form, pairs)
    golden = explain_pairs(settings, model, pairs)
    card = model_card(
        run, settings, chosen=chosen, apart=apart, num_bytes=len(model), num_golden=len(golden)
    )
    name, files = bundle_files(
        settings, model, golden=golden, card=card, ngrams=common_texts(run, "student")
    )
    return Exported(name, files, chosen, apart, len(golden))


def forms_of(run: Run, settings: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Forms:
    """The forms of the run's student, whose exact `arrays` are given."""
    fit, spec, lexicon = student_fit(run, "student"), spec_of(run), load_lexicon(run)
    trained_V = load_trained_rows(fit.output, num_rows=len(arrays["embedding"]))
    sample = partial(sample_inputs, fit.folder, fit.shards, arrays, spec=spec, lexicon=lexicon)
    return Forms(settings, arrays, spec=spec, trained_V=trained_V, sample=sample)


def _most_apart(forms: Forms, form: Form, pairs: Pairs) -> float:
    """The largest difference of a golden pair's score in a form from that in the exact form."""
    exact, stored = (forms.scorer(one).score_pairs(*pairs) for one in (forms.exact, form))
    return float(np.abs(exact - stored).max())


def scorer_of(
    settings: dict[str, Any], arrays: Mapping[str, NDArray[Any]], *, table: str = "float32"
) -> Scorer:
    """The scorer of a student in memory, as its bundle would be served."""
    return Scorer(settings, aligned(model_of(settings, arrays, table=table)))


def bundle_arrays(run: Run, role: str) -> dict[str, NDArray[np.float32]]:
    """The arrays of a student under the scorer's names for them.

    Raises:
        UserError: the student is not trained yet.
    """
    folder = run.student(role)
    if folder.success() is None:
        raise UserError(f"no student in {folder} yet: run `train` first")
    return student_arrays(run, folder)


def student_arrays(run: Run, folder: Folder) -> dict[str, NDArray[np.float32]]:
    """The arrays of the student in a folder of the run, under the scorer's names for them."""
    arrays = {name: value.numpy() for name, value in load_student(folder).items()}
    return {**arrays, **load_lexicon(run).to_arrays()}


def score_split(
    run: Run, scorer: Scorer, split: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scores and labels of the dev or test split, in shard order; NaN: no soft label."""
    scores, labels = [np.empty(0, np.float32)], [np.empty(0, np.float32)]
    targets, pieces = split_targets(run, split), pieces_of(split_shards(run, split))
    for piece, rows in zip(pieces, read_pieces(run.split(split), pieces), strict=True):
        scores.append(scorer.score_texts(rows["query"], rows["title"]))
        labels.append(targets.for_piece(piece, rows))
    return np.concatenate(scores), np.concatenate(labels)
