import numpy as np

from raydistill.serving.native.int8_layers import input_factors
from raydistill.student.export.compact import with_columns, with_factors

F32 = np.float32


def student(rank: int, *, dim: int = 6, bags: int = 2, dense: int = 3) -> dict[str, np.ndarray]:
    """A table of some rank and a first layer of 5 outputs."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((40, rank)) @ rng.standard_normal((rank, dim))
    weights = rng.standard_normal((5, bags * dim + dense))
    return {"embedding": table.astype(F32), "weight_0": weights.astype(F32)}


def inputs(arrays: dict[str, np.ndarray], *, bags: int = 2, dense: int = 3) -> np.ndarray:
    """Bags of three rows each, and dense features; the same rows whatever the columns."""
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 40, (300, bags, 3))
    sums = arrays["embedding"][rows].sum(axis=2).reshape(300, -1)
    return np.hstack([sums, rng.standard_normal((300, dense))]).astype(F32)


def test_a_table_of_low_rank_needs_no_more_columns() -> None:
    arrays = student(rank=2)
    x = inputs(arrays)
    found, x_small = with_columns(arrays, x, num_bags=2, columns=2)
    assert found["embedding"].shape == (40, 2) and found["weight_0"].shape == (5, 2 * 2 + 3)
    assert np.allclose(inputs(found), x_small, atol=1e-4)
    assert np.allclose(x_small @ found["weight_0"].T, x @ arrays["weight_0"].T, atol=1e-3)


def test_all_columns_change_nothing() -> None:
    arrays = student(rank=6)
    x = inputs(arrays)
    found, x_small = with_columns(arrays, x, num_bags=2, columns=6)
    assert np.allclose(x_small @ found["weight_0"].T, x @ arrays["weight_0"].T, atol=1e-3)


def test_the_columns_kept_are_those_that_the_layer_reads() -> None:
    arrays = student(rank=6)
    arrays["embedding"][:, :4] *= 100  # large, but read with weight 0
    arrays["weight_0"][:, [*range(4), *range(6, 10)]] = 0
    x = inputs(arrays)
    found, x_small = with_columns(arrays, x, num_bags=2, columns=2)
    exact = x @ arrays["weight_0"].T
    assert np.abs(x_small @ found["weight_0"].T - exact).max() < 1e-3 * np.abs(exact).max()


def test_fewer_columns_are_the_best_of_their_number() -> None:
    arrays = student(rank=6)
    x, errors = inputs(arrays), []
    exact = x @ arrays["weight_0"].T
    for columns in (1, 2, 3, 4, 5):
        found, x_small = with_columns(arrays, x, num_bags=2, columns=columns)
        errors.append(float(np.square(x_small @ found["weight_0"].T - exact).mean()))
    assert errors == sorted(errors, reverse=True)
    kept = arrays["embedding"].copy()
    kept[:, 3:] = 0  # the first three columns in place of the best three
    naive = np.square(inputs({"embedding": kept}) @ arrays["weight_0"].T - exact).mean()
    assert errors[2] < 0.5 * naive


def test_factors_are_those_of_the_inputs_and_the_weights() -> None:
    arrays = student(rank=6)
    x = inputs(arrays)
    expected = input_factors(x, arrays["weight_0"])
    assert (with_factors(arrays, x)["input_factors"] == expected).all()
