"""Raw memory as arrays and as vectors, for functions of the library: no allocation.

An array is made of an address and a length; a tile multiplies matrices in registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from raydistill.serving.native.layout import PANEL

_Codegen = Callable[..., Any]
_WORD, _NUMBER = ir.IntType(64), ir.FloatType()
_VECTOR, _PANEL_BYTES = ir.VectorType(_NUMBER, PANEL), ir.Constant(_WORD, 4 * PANEL)
_FUSED = ("contract",)  # multiply and add in one instruction


def _code(array: types.Array) -> _Codegen:
    """Code that makes an array from an address, a length and for a matrix its columns."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        kind = context.get_data_type(array.dtype)
        size = context.get_constant(types.intp, context.get_abi_sizeof(kind))
        pointer = builder.inttoptr(args[0], kind.as_pointer())
        strides = [size] if array.ndim == 1 else [builder.mul(args[2], size), size]
        made = make_array(array)(context, builder)  # type: ignore[no-untyped-call]
        populate_array(made, pointer, list(args[1:]), strides, size, None)  # type: ignore[no-untyped-call]
        return made._getvalue()

    return codegen


def _row_view(dtype: types.Type) -> Any:  # noqa: ANN401 - numba's intrinsic
    """An intrinsic (address, length) -> array of `dtype` that owns nothing."""
    array = types.Array(dtype, 1, "C")

    @intrinsic
    def view(typing: Any, address: Any, length: Any) -> Any:  # noqa: ANN401
        return array(types.int64, types.int64), _code(array)

    return view


def _matrix_view(dtype: types.Type) -> Any:  # noqa: ANN401 - numba's intrinsic
    """An intrinsic (address, rows, columns) -> matrix of `dtype` that owns nothing."""
    array = types.Array(dtype, 2, "C")

    @intrinsic
    def view(typing: Any, address: Any, rows: Any, columns: Any) -> Any:  # noqa: ANN401
        return array(types.int64, types.int64, types.int64), _code(array)

    return view


@intrinsic
def _float_of(typing: Any, bits: Any) -> Any:  # noqa: ANN401 - numba's types
    """The float32 that 32 bits encode."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.bitcast(args[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), codegen


def _tile(num_rows: int, num_panels: int) -> Any:  # noqa: ANN401 - numba's intrinsic
    """An intrinsic: ReLU(x W + b) of some rows of x and some panels of W, in registers.

    Its arguments are int64: the addresses of x, W, b and of the result; the bytes of a row of x, of
    a panel of W and of a row of the result; the number of inputs, at least 1. A panel has PANEL
    outputs of all inputs, and the `num_panels` panels are adjacent.
    """
    cells = [(row, panel) for row in range(num_rows) for panel in range(num_panels)]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        biases = [_load(builder, args[2], _PANEL_BYTES, panel, _VECTOR) for _, panel in cells]
        sums = _add_products(builder, args, cells, biases)
        _store_positive(builder, args[3], args[6], cells, sums)
        return context.get_dummy_value()

    @intrinsic
    def tile(  # numba wants each argument by its name
        typing: Any,  # noqa: ANN401
        x: Any,  # noqa: ANN401
        weights: Any,  # noqa: ANN401
        biases: Any,  # noqa: ANN401
        out: Any,  # noqa: ANN401
        x_step: Any,  # noqa: ANN401
        panel_step: Any,  # noqa: ANN401
        out_step: Any,  # noqa: ANN401
        inputs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        return types.void(*[types.int64] * 8), codegen

    return tile


def _place(builder: Any, start: Any, step: Any, times: int, kind: Any) -> Any:  # noqa: ANN401
    """A pointer to `start` + `step` * `times`."""
    at = builder.add(start, builder.mul(step, ir.Constant(_WORD, times)))
    return builder.inttoptr(at, kind.as_pointer())


def _load(builder: Any, start: Any, step: Any, times: int, kind: Any) -> Any:  # noqa: ANN401
    return builder.load(_place(builder, start, step, times, kind), align=4)


def _add_products(
    builder: Any,  # noqa: ANN401 - llvmlite's
    args: Any,  # noqa: ANN401
    cells: list[tuple[int, int]],
    starts: list[Any],
) -> list[Any]:
    """A loop over the inputs, with a vector of sums for each row and panel; the sums at its end.

    Each sum adds the inputs in order, so a row has the same bits in every shape of tile.
    """
    before, loop = builder.block, builder.append_basic_block("tile")
    after = builder.append_basic_block("tile.end")
    builder.branch(loop)
    builder.position_at_end(loop)
    k, sums = builder.phi(_WORD), [builder.phi(_VECTOR) for _ in cells]
    products = _products(builder, args, cells, k)
    added = [builder.fadd(*two, flags=_FUSED) for two in zip(sums, products, strict=True)]
    following = builder.add(k, ir.Constant(_WORD, 1))
    values = zip([ir.Constant(_WORD, 0), *starts], [following, *added], strict=True)
    for phi, (start, more) in zip([k, *sums], values, strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(more, loop)
    builder.cbranch(builder.icmp_signed("<", following, args[7]), loop, after)
    builder.position_at_end(after)
    return added


def _products(
    builder: Any,  # noqa: ANN401 - llvmlite's
    args: Any,  # noqa: ANN401
    cells: list[tuple[int, int]],
    k: Any,  # noqa: ANN401
) -> list[Any]:
    """Input k of each row times the weights of each panel."""
    x, weights, _, _, x_step, panel_step, _, _ = args
    x_k = builder.add(x, builder.mul(k, ir.Constant(_WORD, 4)))
    w_k = builder.add(weights, builder.mul(k, _PANEL_BYTES))
    rows, panels = sorted({row for row, _ in cells}), sorted({panel for _, panel in cells})
    loaded = [_load(builder, w_k, panel_step, panel, _VECTOR) for panel in panels]
    values = [_splat(builder, _load(builder, x_k, x_step, row, _NUMBER)) for row in rows]
    return [builder.fmul(values[row], loaded[panel], flags=_FUSED) for row, panel in cells]


def _splat(builder: Any, value: Any) -> Any:  # noqa: ANN401 - llvmlite's
    """A vector of one number."""
    none, first = ir.Constant(_VECTOR, ir.Undefined), ir.Constant(ir.IntType(32), 0)
    places = ir.Constant(ir.VectorType(ir.IntType(32), PANEL), [0] * PANEL)
    return builder.shuffle_vector(builder.insert_element(none, value, first), none, places)


def _store_positive(
    builder: Any,  # noqa: ANN401 - llvmlite's
    out: Any,  # noqa: ANN401
    out_step: Any,  # noqa: ANN401
    cells: list[tuple[int, int]],
    sums: list[Any],
) -> None:
    zero = ir.Constant(_VECTOR, [0.0] * PANEL)
    for total, (row, panel) in zip(sums, cells, strict=True):
        positive = builder.select(builder.fcmp_ordered(">", total, zero), total, zero)
        start = builder.add(out, builder.mul(out_step, ir.Constant(_WORD, row)))
        builder.store(positive, _place(builder, start, _PANEL_BYTES, panel, _VECTOR), align=4)


tile_1x4, tile_1x1, tile_4x1 = _tile(1, 4), _tile(1, 1), _tile(4, 1)
float_of: Any = _float_of
u1, u2, u4, u8 = (
    _row_view(kind) for kind in (types.uint8, types.uint16, types.uint32, types.uint64)
)
i1, i4, i8 = (_row_view(kind) for kind in (types.int8, types.int32, types.int64))
f4, f8, flags = (_row_view(kind) for kind in (types.float32, types.float64, types.boolean))
matrix_f4, matrix_u2, matrix_i1 = (
    _matrix_view(kind) for kind in (types.float32, types.uint16, types.int8)
)
