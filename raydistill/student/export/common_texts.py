"""The common n-grams of a run as texts, for `ngrams.json`: a model has their hashes alone."""

from __future__ import annotations

from raydistill.evaluation.cases import distinct_sample
from raydistill.runs.lexicon_file import spec_of
from raydistill.runs.run_folder import Run
from raydistill.serving.explanation.neighbors import count_ngrams
from raydistill.student.batches import sample_texts
from raydistill.student.fit_files import student_fit

# 15,000 texts: 0.2 MB. A rarer text may also name a person.
_MOST_WORDS, _MOST_BIGRAMS, _LEAST_TIMES = 10_000, 5_000, 5


def common_texts(run: Run, role: str) -> list[str]:
    """The most frequent words and pairs of words of a sample of the transfer set, in that order."""
    fit = student_fit(run, role)
    table = sample_texts(fit.folder, fit.shards)
    sides = (distinct_sample(table[name]) for name in ("query", "title"))
    texts = dict.fromkeys(text for side in sides for text in side)
    counts = count_ngrams(texts, spec=spec_of(run))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    common = [text for text, num in ranked if num >= _LEAST_TIMES]
    words = [text for text in common if " " not in text]
    bigrams = [text for text in common if " " in text]
    return words[:_MOST_WORDS] + bigrams[:_MOST_BIGRAMS]
