"""A bundle whose scores differ from its student is not written; the error names the pair."""

import numpy as np
import pytest

from raydistill.student.export import _check_alike


def test_golden_rows_that_differ_name_the_pair() -> None:
    student = np.array([0.1, 0.5, 0.9], np.float32)
    queries, titles = ["sofa", 'pan 12"', "lamp"], ["Grey sofa", "Pan, 12 inch", "Lamp"]
    _check_alike(student, student + np.float32(1e-6), queries, titles)
    for other in (0.75, np.nan):
        bundle = np.array([0.1, other, 0.9], np.float32)
        with pytest.raises(RuntimeError, match="on 1 of 3 golden pairs") as told:
            _check_alike(student, bundle, queries, titles)
        assert "query 'pan 12\"' with title 'Pan, 12 inch': student 0.500000" in str(told.value)
