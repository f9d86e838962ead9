"""The model card of a bundle: Markdown with metadata, in the form of the Hugging Face hub."""

from __future__ import annotations

from typing import Any

from raydistill.evaluation.markup import escaped
from raydistill.runs.lexicon_file import spec_of
from raydistill.runs.run_folder import Run
from raydistill.student.export.stored_form import ChosenForm
from raydistill.teachers.judged_logits import stack_of


def model_card(
    run: Run,
    settings: dict[str, Any],
    *,
    chosen: ChosenForm,
    apart: float,
    num_bytes: int,
    num_golden: int,
) -> str:
    """The content of README.md; `num_bytes`: the size of model.rdm."""
    weights = ", ".join(f"{escaped(name)} {w:.2f}" for name, w in stack_of(run).weights.items())
    done = run.student("student").success() or {}
    student, spec, lost = run.config.resolved.student, spec_of(run), chosen.lost()
    return f"""---
library_name: raydistill
pipeline_tag: text-ranking
tags:
- search-relevance
- distillation
- n-grams
---
# A raydistill student

Scores how relevant a product title is to a search query, from 0 to 1.

```python
from raydistill import Scorer
Scorer.load("bundle").score("grey sofa", ["Sofa, 3 seats, grey", "Sofa cover, grey"])
```

- Preset `{spec.preset}`, trained with {spec.num_rows:,} rows of {student.embedding_dim}, hidden
  layers {list(student.hidden or ())}. `model.rdm` has {num_bytes / 1e6:.1f} MB.
- Distilled from {weights} at temperature {settings["temperature"]};
  {done.get("rows_in", 0):,} pairs.
- {_measure(run)}: {chosen.tried[chosen.form].ranking:.4f}. A score of
  {settings["threshold"]:.3f} or more is called relevant.
- Stored form: {chosen.form}. On the dev split that costs {lost.ranking:.4f} of that and
  {lost.ndcg_10:.4f} of nDCG@10 against float32. Scores of golden pairs differ by at most
  {apart:.4f}.
- `golden.json` holds {num_golden} pairs with their scores and all steps to them, for a check of any
  other reader.
- Fingerprint of the student `{settings["student"]}`.
"""


def _measure(run: Run) -> str:
    """What the figure of the dev split is."""
    if run.config.relevant_at("dev") is None:
        return "Agreement with the teachers (rank correlation) on held-out queries"
    return "AUC on the judged dev split"
