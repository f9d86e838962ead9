"""A student to the files of its bundle, after a check of the scorer against torch; no Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.data.pairs import features_of
from raydistill.errors import UserError
from raydistill.evaluation.markup import escaped
from raydistill.evaluation.metrics import best_threshold
from raydistill.files.folder import Folder
from raydistill.files.pieces import pieces_of, read_pieces
from raydistill.runs.lexicon_file import load_lexicon, spec_of
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import judged_shards
from raydistill.serving.bundle import bundle_files
from raydistill.serving.feature_spec import FORMAT
from raydistill.serving.scorer import Scorer
from raydistill.student.fit_files import load_student, student_fit
from raydistill.student.network import Student, predict
from raydistill.teachers.judged_logits import stack_of

_NUM_GOLDEN = 64
_TOLERANCE = 1e-4  # of a score: float32 sums in another order differ by less than 1e-5


def bundle_settings(run: Run, role: str) -> dict[str, Any]:
    """The content of bundle.json; the baseline on judged labels only has temperature 1."""
    config = run.config
    return {
        "format": FORMAT,
        "student": run.train_fingerprint(role),
        "ngrams": asdict(spec_of(run)),
        "temperature": config.soft_labels.temperature if role == "student" else 1.0,
        "threshold": 0.5,
        "max_query_chars": config.pairs.max_query_chars,
        "max_title_chars": config.pairs.max_title_chars,
        "single_texts": not config.judged.query,
    }


def _bundle_files(run: Run) -> tuple[str, dict[str, bytes]]:
    """The bundle's fingerprint and its files, bundle.json last, after a check against torch."""
    arrays, settings = bundle_arrays(run, "student"), bundle_settings(run, "student")
    scorer = Scorer(settings, arrays)
    settings["threshold"] = _dev_threshold(run, scorer)
    golden = _golden(run, scorer)
    card = _model_card(run, settings, scorer)
    return bundle_files(settings, arrays, golden=golden, card=card)


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


def _dev_threshold(run: Run, scorer: Scorer) -> float:
    """The score from which a pair counts as relevant: the most accurate one on the dev split."""
    scores, labels = score_split(run, scorer, "dev")
    return best_threshold(scores, labels, relevant_at=run.config.judged.relevant_at)


def score_split(
    run: Run, scorer: Scorer, split: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scores and labels of a judged split, in shard order."""
    scores, labels = [np.empty(0, np.float32)], [np.empty(0, np.float32)]
    folder: Folder = run.judged(split)
    for rows in read_pieces(folder, pieces_of(judged_shards(run, split))):
        features = features_of(rows, spec=scorer.spec, lexicon=scorer.lexicon)
        scores.append(scorer.scores_of(scorer.logits(features)))
        labels.append(rows["label"].to_numpy())
    return np.concatenate(scores), np.concatenate(labels)


def _golden(run: Run, scorer: Scorer) -> list[dict[str, Any]]:
    """Some pairs with their scores, after a check that torch and the scorer agree on them."""
    fit = student_fit(run, "student")
    shard = max(fit.shards, key=lambda name: fit.shards[name])
    rows = run.pairs.read_rows(shard, 0, _NUM_GOLDEN)
    student = Student(spec_of(run), run.config.student)
    student.load(load_student(fit.output))
    features = features_of(rows, spec=scorer.spec, lexicon=scorer.lexicon)
    by_torch = scorer.scores_of(predict(student, features, device="cpu"))
    queries, titles = rows["query"].to_pylist(), rows["title"].to_pylist()
    by_bundle = scorer.score_pairs(queries, titles)
    _check_alike(by_torch, by_bundle, queries, titles)
    return [
        {"query": query, "title": title, "score": round(float(score), 6)}
        for query, title, score in zip(queries, titles, by_bundle, strict=True)
    ]


def _check_alike(
    by_torch: NDArray[np.float32],
    by_bundle: NDArray[np.float32],
    queries: Sequence[str],
    titles: Sequence[str],
) -> None:
    """Raise RuntimeError unless student and bundle give equal scores for the golden pairs."""
    apart = np.abs(by_torch - by_bundle)
    row = int(np.argmax(np.nan_to_num(apart, nan=np.inf)))
    if apart[row] <= _TOLERANCE:
        return
    raise RuntimeError(
        f"bundle and student differ on {np.count_nonzero(~(apart <= _TOLERANCE))} of {len(apart)} "
        f"golden pairs, most on query {queries[row]!r} with title {titles[row]!r}: student "
        f"{by_torch[row]:.6f}, bundle {by_bundle[row]:.6f}; training and serving "
        "read this pair differently: report the pair"
    )


def _model_card(run: Run, settings: dict[str, Any], scorer: Scorer) -> str:
    weights = ", ".join(f"{escaped(name)} {w:.2f}" for name, w in stack_of(run).weights.items())
    done = run.student("student").success() or {}
    return f"""# A raydistill student

Scores how relevant a product title is to a search query, from 0 to 1.

```python
from raydistill import Scorer
Scorer.load("bundle").score("grey sofa", ["Sofa, 3 seats, grey", "Sofa cover, grey"])
```

- Preset `{scorer.spec.preset}`, {scorer.spec.num_rows:,} rows of
  {run.config.student.embedding_dim}, hidden layers {scorer.hidden}.
- Distilled from {weights} at temperature {settings["temperature"]};
  {done.get("rows_in", 0):,} pairs.
- AUC on the judged dev split: {done.get("dev_auc", float("nan")):.4f}. A score of
  {settings["threshold"]:.3f} or more is called relevant.
- `golden.json` holds {_NUM_GOLDEN} pairs with their scores, for a check of any other reader.
- Fingerprint of the student `{settings["student"]}`.
"""
