"""In how many titles a word occurs, by the highest bits of its hash, and the IDF of that (numba).

Shapes: I = 2^IDF_BITS values of these bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydistill.serving.machine_code.compiled import compiled
from raydistill.serving.text.arrow_text import Block, Texts, row_blocks
from raydistill.serving.text.characters import Tables, character_tables
from raydistill.serving.tokenizer import classify, longest, spell, split_words
from raydistill.serving.units.names import Names
from raydistill.serving.units.table import UnitTable, unit_table

IDF_BITS = 18  # 262,144 values
_SHIFT = np.uint64(64 - IDF_BITS)


def document_counts(titles: Texts, *, units: bool, extra_units: Names = ()) -> NDArray[np.int64]:
    """Number of titles with a word of each value of the hash's highest IDF_BITS bits; shape I.

    `units` and `extra_units` as in the NgramSpec.
    """
    counts = np.zeros(1 << IDF_BITS, np.int64)
    table = unit_table(extra_units)
    for block in row_blocks(titles):
        counts += _document_counts(block, character_tables(), table, units)
    return counts


def idf(counts_I: NDArray[np.int64], *, num_documents: int) -> NDArray[np.float32]:
    """Inverse document frequency ln((N + 1) / (df + 1)); largest for an unseen word."""
    return np.log((num_documents + 1) / (counts_I + 1)).astype(np.float32)


@compiled
def _document_counts(
    titles: Block, tables: Tables, table: UnitTable, units: bool
) -> NDArray[np.int64]:
    most = longest(titles[1]) + 1
    grown = table.growth * most if units else most
    points, spelled = np.empty(most, np.uint32), np.empty(grown, np.uint32)
    classes, spaced = np.empty(grown, np.uint8), np.empty(3 * grown, np.uint32)
    words, numeric = np.empty(grown, np.uint64), np.empty(grown, np.bool_)
    counts = np.zeros(1 << IDF_BITS, np.int64)
    last = np.full(len(counts), -1, np.int64)  # the last title counted for each value
    for row in range(len(titles[1]) - 1):
        found, num = spell(titles, row, tables, table, units, points, spelled)
        classify(found, num, tables[0], True, classes)
        for word in words[: split_words(found, classes, num, words, numeric, spaced)[0]]:
            at = word >> _SHIFT
            if last[at] != row:
                last[at] = row
                counts[at] += 1
    return counts
