"""Compare student settings on held-out transfer pairs, without judged labels.

    python tests/bench/held_out.py --config RUN.TOML --shards 2 --seeds 2 \\
        '{}' '{"train.table_learning_rate": 0.01}' '{"student.dropout": 0.2}'

RUN is labeled. The last of its shards, which hold random pairs, are held out. For each group of
settings and each seed a student is fitted on the others. Output, on the held-out pairs: mean
Kullback-Leibler divergence of the student's soft labels from the teachers' at temperature 1, and
the share of pairs whose logits have the same sign. Also AUC and accuracy on the judged test split,
which must not be used to choose settings. Thousands of pairs show differences that a few hundred
judged pairs do not.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prepared import rows_of
from scipy.special import expit, log_expit
from students import fitted, judge

from raydistill.config.loading import load_config
from raydistill.runs.lexicon_file import load_lexicon
from raydistill.runs.run_folder import Run
from raydistill.search.space import with_settings
from raydistill.stages.fits.lexicon import write_lexicon
from raydistill.student.batches import Loader
from raydistill.student.fit import StudentFit
from raydistill.student.fit_files import student_fit
from raydistill.student.network import Student, predict


def divergence(found_B: NDArray[np.float32], true_B: NDArray[np.float32]) -> float:
    """Mean Kullback-Leibler divergence of the soft labels of `found_B` from those of `true_B`."""
    yes, no = log_expit(true_B) - log_expit(found_B), log_expit(-true_B) - log_expit(-found_B)
    return float(np.mean(expit(true_B) * yes + expit(-true_B) * no))


def distance(fit: StudentFit, student: Student, names: list[str]) -> dict[str, float]:
    """Divergence and agreement of a student with its teachers on some shards."""
    temperature = fit.targets.temperature
    targets = replace(fit.targets, target="logit")
    loader = Loader(fit.folder, targets, spec=fit.spec, lexicon=load_lexicon(fit.run))
    rows = rows_of(fit.folder)
    features, true = loader.read_all({name: rows[name] for name in names})
    found = predict(student, features, device="cpu")
    known = ~np.isnan(true)
    found, true = temperature * found[known], temperature * true[known]
    agreed = float(np.mean((found > 0) == (true > 0)))
    return {"divergence": divergence(found, true), "agreed": agreed}


def measure(base: Run, settings: dict[str, Any], num_held: int) -> dict[str, float]:
    run = replace(base, config=with_settings(base.config, settings))
    write_lexicon(run)
    fit = student_fit(run, "student")
    names = sorted(fit.shards)
    kept, held = names[:-num_held], names[-num_held:]
    fit = replace(fit, shards={name: fit.shards[name] for name in kept})
    student = fitted(fit)
    entry = judge(fit, student)
    return {**distance(fit, student, held), "auc": entry["auc"], "accuracy": entry["accuracy"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--shards", type=int, default=2, help="how many are held out")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("settings", nargs="+", type=json.loads, help="JSON of section.field names")
    arguments = parser.parse_args()
    run = Run(load_config(arguments.config))
    print(
        "| settings | divergence | agreed | test AUC | test accuracy |\n|---|---:|---:|---:|---:|"
    )
    figures = []
    for settings in arguments.settings:
        each = [
            measure(run, {**settings, "train.seed": seed}, arguments.shards)
            for seed in range(arguments.seeds)
        ]
        names = ("divergence", "agreed", "auc", "accuracy")
        values = {name: [one[name] for one in each] for name in names}
        spread = {name: np.std(v, ddof=min(1, len(v) - 1)) for name, v in values.items()}
        cells = [f"{np.mean(v):.4f} ± {spread[name]:.4f}" for name, v in values.items()]
        print(f"| {json.dumps(settings)} | {' | '.join(cells)} |", flush=True)
        figures.append({"settings": settings, **values})
    print(json.dumps({"bench": "held_out", "figures": figures}))


if __name__ == "__main__":
    main()
