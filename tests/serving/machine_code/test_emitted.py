import subprocess
import sys

import pytest

from raydistill.serving.machine_code.emitted import emit_options, emitted

PROGRAM = """
import numba
import numpy as np
from raydistill.serving.machine_code.emitted import emitted, start_emitting

start_emitting()

@emitted
def twice(value):
    return 2 * value

@emitted
def allocates(num):
    return len(np.empty(num))

twice.compile((numba.int64,))
print("compiled", len(twice.overloads))
allocates.compile((numba.int64,))
"""


def test_outside_of_the_emitter_a_function_stays_as_it_is() -> None:
    def twice(value: int) -> int:
        return 2 * value

    assert emitted(twice) is twice and emitted(fastmath={"contract"})(twice) is twice
    assert emit_options() == {}


@pytest.mark.slow
def test_an_allocation_cannot_be_emitted() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.stdout == "compiled 1\n" and done.returncode == 1
    assert "Only accept returning of array passed into the function" in done.stderr
