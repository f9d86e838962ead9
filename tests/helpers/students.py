"""Inputs of a small student."""

import numpy as np

from raydistill.serving.feature_spec import Features, NgramSpec
from raydistill.serving.featurize import featurize
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.tokenizer import encode
from raydistill.student.embedding_kernels import look_up
from raydistill.student.network import Inputs, to_inputs


def some_features(num: int, spec: NgramSpec) -> Features:
    """Features of `num` pairs of a few words."""
    titles = [f"word{n % 7} word{n % 3}" for n in range(num)]
    queries = [f"word{n % 5}" for n in range(num)]
    return featurize(
        encode(queries), encode(titles), spec=spec, lexicon=Lexicon.from_idf(np.ones(1, np.float32))
    )


def inputs_of(features: Features) -> Inputs:
    """The student's inputs on the CPU."""
    lookup = look_up(features.ids_N, features.offsets)
    return to_inputs(lookup, features.dense_BF, device="cpu")
