"""A student's model file in each form (`stored_form.Form`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.files.folder import Folder
from raydistill.serving.embedding_bag import sum_bags
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.featurize import featurize
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.native.emit.model_file import model_bytes
from raydistill.serving.native.layout import aligned
from raydistill.serving.scorer import Scorer
from raydistill.serving.text.arrow_text import to_texts
from raydistill.student.batches import sample_texts
from raydistill.student.export.compact import with_columns, with_factors
from raydistill.student.export.stored_form import Form, exact_form

Arrays = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float32]


class Forms:
    """Model files and scorers of a student, by form."""

    def __init__(
        self,
        settings: dict[str, Any],
        arrays: Arrays,
        *,
        spec: NgramSpec,
        trained_V: NDArray[np.bool_],
        sample: Callable[[], Floats],
    ) -> None:
        """`settings` and `arrays` of the exact form; `trained_V`: the rows that training moved.

        `sample` returns the network's inputs of some training pairs, shape B, X
        (`sample_inputs`); called only if a form needs them.
        """
        self._settings, self._arrays, self._spec = settings, arrays, spec
        self._trained_V, self._sample = trained_V, sample
        self.exact = exact_form(arrays["embedding"].shape[1])
        self._narrow: dict[int, tuple[Arrays, Floats]] = {}  # by columns

    @cached_property
    def _inputs_BX(self) -> Floats:
        return self._sample()

    def model(self, form: Form) -> bytes:
        """The content of model.rdm in a form."""
        arrays = dict(self._arrays)
        if form.columns != self.exact.columns:
            arrays = dict(self._of_columns(form.columns)[0])
        if form.layers == "int8":
            arrays = with_factors(arrays, self._of_columns(form.columns)[1])
        if form.table != self.exact.table and not self._trained_V.all():
            arrays["used"] = self._trained_V
        return model_of(self._settings, arrays, table=form.table, layers=form.layers)

    def scorer(self, form: Form) -> Scorer:
        """The scorer of a form."""
        return Scorer(self._settings, aligned(self.model(form)))

    def _of_columns(self, columns: int) -> tuple[Arrays, Floats]:
        """Arrays and the sample's inputs with a table of some columns."""
        if columns == self.exact.columns:
            return self._arrays, self._inputs_BX
        if columns not in self._narrow:
            bags = self._spec.num_bags
            self._narrow[columns] = with_columns(
                self._arrays, self._inputs_BX, num_bags=bags, columns=columns
            )
        return self._narrow[columns]


def sample_inputs(
    folder: Folder, shards: Mapping[str, int], arrays: Arrays, *, spec: NgramSpec, lexicon: Lexicon
) -> Floats:
    """The network's inputs of some of the pairs in `shards`, shape B, X."""
    rows = sample_texts(folder, shards)
    features = featurize(
        to_texts(rows["query"]), to_texts(rows["title"]), spec=spec, lexicon=lexicon
    )
    width = spec.num_bags * arrays["embedding"].shape[1]
    x_BX = np.empty((features.num_pairs, width + spec.num_dense), np.float32)
    sum_bags(features.ids_N, features.offsets, arrays["embedding"], spec.num_bags, x_BX)
    x_BX[:, width:] = (features.dense_BF - arrays["dense_mean"]) / arrays["dense_std"]
    return x_BX


def model_of(
    settings: dict[str, Any], arrays: Arrays, *, table: str, layers: str = "float32"
) -> bytes:
    """The content of model.rdm; its word vectors are int8 where the table is."""
    vectors = table if table == "int8" else "float16"
    return model_bytes(settings, arrays, table=table, vectors=vectors, layers=layers)
