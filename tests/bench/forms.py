"""What the forms of a bundle and smaller networks cost in ranking, and their size.

    python tests/bench/forms.py --config RUN.TOML --hidden 256,64 128,64 --seeds 3

RUN is labeled. A student is fitted for each sizes of hidden layers and each seed, one core each,
and stored in each form (`[export]`). AUC and nDCG@10 on the test split, mean and standard deviation
over seeds; what each form loses against the exact one of the same student.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from dataclasses import replace
from typing import Any

import numpy as np
from students import fitted_state

from raydistill.config.loading import load_config
from raydistill.evaluation.metrics.pair_metrics import auc
from raydistill.evaluation.metrics.query_metrics import ndcg
from raydistill.runs.lexicon_file import load_lexicon
from raydistill.runs.run_folder import Run
from raydistill.search.space import with_settings
from raydistill.serving.native.layout import aligned
from raydistill.serving.scorer import Scorer
from raydistill.stages.fits.lexicon import write_lexicon
from raydistill.student.export.forms import Forms, sample_inputs
from raydistill.student.export.stored_form import Form, exact_form
from raydistill.student.export.student_bundle import bundle_settings, score_split
from raydistill.student.fit_files import student_fit
from raydistill.teachers.judged_logits import read_groups

Found = dict[str, dict[str, float]]  # figures by form


def forms_of(columns: int) -> list[Form]:
    quarter, half = columns // 4, columns // 2
    sizes = [Form("int8", number, "float32") for number in (half, quarter, columns // 8)]
    small = [Form("int8", number, "int8") for number in (columns, half, quarter)]
    return [exact_form(columns), Form("int8", columns, "float32"), *sizes, *small]


def measure(task: tuple[str, str, int]) -> Found:
    path, hidden, seed = task
    base = Run(load_config(path))
    settings = {"train.seed": seed, "student.hidden": [int(size) for size in hidden.split(",")]}
    run = replace(base, config=with_settings(base.config, settings))
    fit = student_fit(run, "student")
    state, lexicon = fitted_state(fit), load_lexicon(run)
    weights = {name: value.numpy() for name, value in state.best.items()}
    arrays, bundle = {**weights, **lexicon.to_arrays()}, bundle_settings(run, "student")
    inputs_BX = sample_inputs(fit.folder, fit.shards, arrays, spec=fit.spec, lexicon=lexicon)
    trained_V = state.trainer.trained_rows()
    forms = Forms(bundle, arrays, spec=fit.spec, trained_V=trained_V, sample=lambda: inputs_BX)
    groups, found = read_groups(run, "test"), Found()
    for form in forms_of(weights["embedding"].shape[1]):
        model = aligned(forms.model(form))
        scores, labels = score_split(run, Scorer(bundle, model), "test")
        ranked = auc(scores, labels, relevant_at=run.config.judged.relevant_at)
        found[str(form)] = {
            **{"auc": ranked, "ndcg_10": ndcg(scores, labels, groups)},
            "megabytes": len(model) / 1e6,
        }
    return found


def row(hidden: str, form: str, seeds: list[Found]) -> str:
    exact = next(iter(seeds[0]))
    cells = [f"{np.mean([one[form]['megabytes'] for one in seeds]):.1f}"]
    for name in ("auc", "ndcg_10"):
        values = np.array([one[form][name] for one in seeds])
        lost = np.array([one[exact][name] for one in seeds]) - values
        spread = f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""
        cells += [f"{values.mean():.4f}{spread}", f"{lost.mean():.5f} (most {lost.max():.5f})"]
    return f"| {hidden} | {form} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--hidden", nargs="+", default=["256,64", "128,64"])
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    write_lexicon(Run(load_config(given.config)))
    tasks = [(given.config, sizes, seed) for sizes in given.hidden for seed in range(given.seeds)]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        found = pool.map(measure, tasks, chunksize=1)
    print(
        "| hidden | form | MB | AUC | lost | nDCG@10 | lost |\n|---|---|---:|---:|---:|---:|---:|"
    )
    figures: dict[str, Any] = {}
    for at, sizes in enumerate(given.hidden):
        seeds = found[at * given.seeds : (at + 1) * given.seeds]
        figures[sizes] = seeds
        for form in seeds[0]:
            print(row(sizes, form, seeds), flush=True)
    print(json.dumps({"bench": "forms", "figures": figures}))


if __name__ == "__main__":
    main()
