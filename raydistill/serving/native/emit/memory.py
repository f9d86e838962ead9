"""Raw memory as arrays and as vectors, for functions of the library: no allocation.

An array is made of an address and a length; a tile multiplies matrices in registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.cgutils import get_or_insert_function, unpack_tuple
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from raydistill.serving.native.layout import DOT, GROUP, PANEL

_Codegen = Callable[..., Any]
_Added = Callable[[Any, list[Any]], list[Any]]
_WORD, _NUMBER = ir.IntType(64), ir.FloatType()
_VECTOR, _PANEL_BYTES = ir.VectorType(_NUMBER, PANEL), ir.Constant(_WORD, 4 * PANEL)
_FUSED = ("contract",)  # multiply and add in one instruction
_INT = ir.IntType(32)
_SUMS, _BYTES = ir.VectorType(_INT, PANEL), ir.VectorType(ir.IntType(8), GROUP * PANEL)
_GROUP_BYTES = ir.Constant(_WORD, GROUP * PANEL)
_COLUMNS, _TWO = ir.VectorType(ir.IntType(8), PANEL), ir.Constant(_WORD, 2)


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


@intrinsic
def _bits_of(typing: Any, value: Any) -> Any:  # noqa: ANN401 - numba's types
    """The 32 bits of a float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.bitcast(args[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), codegen


@intrinsic
def _num_bits(typing: Any, word: Any) -> Any:  # noqa: ANN401 - numba's types
    """The number of bits of a uint64 that are set."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.ctpop(args[0])

    return types.int64(types.uint64), codegen


def _tile(num_rows: int, num_panels: int) -> Any:  # noqa: ANN401 - numba's intrinsic
    """An intrinsic: ReLU(x W + b) of some rows of x and some panels of W, in registers.

    Its arguments are int64: the addresses of x, W, b and of the result; the bytes of a row of x, of
    a panel of W and of a row of the result; the number of inputs, at least 1. A panel has PANEL
    outputs of all inputs, and the `num_panels` panels are adjacent.
    """
    cells = [(row, panel) for row in range(num_rows) for panel in range(num_panels)]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        biases = [_load(builder, args[2], _PANEL_BYTES, panel, _VECTOR) for _, panel in cells]
        sums = _loop(builder, cells, biases, _products(builder, args, cells), args[7])
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


def _loop(
    builder: Any,  # noqa: ANN401 - llvmlite's
    cells: list[tuple[int, int]],
    starts: list[Any],
    added: _Added,
    num: Any,  # noqa: ANN401
) -> list[Any]:
    """A loop of `num` steps over the inputs, with a vector of sums for each row and panel.

    `added` is the code of a step: its number and the sums to the new sums. Each sum adds the inputs
    in order, so a row has the same bits in every shape of tile. Returns the sums at the end.
    """
    before, loop = builder.block, builder.append_basic_block("tile")
    after = builder.append_basic_block("tile.end")
    builder.branch(loop)
    builder.position_at_end(loop)
    k, sums = builder.phi(_WORD), [builder.phi(start.type) for start in starts]
    more = added(k, sums)
    following = builder.add(k, ir.Constant(_WORD, 1))
    values = zip([ir.Constant(_WORD, 0), *starts], [following, *more], strict=True)
    for phi, (first, later) in zip([k, *sums], values, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(later, loop)
    builder.cbranch(builder.icmp_signed("<", following, num), loop, after)
    builder.position_at_end(after)
    return more


def _products(builder: Any, args: Any, cells: list[tuple[int, int]]) -> _Added:  # noqa: ANN401
    """Adds input k of each row times the weights of each panel to the sums of a tile."""
    x, weights, _, _, x_step, panel_step, _, _ = args

    def added(k: Any, sums: list[Any]) -> list[Any]:  # noqa: ANN401
        x_k = builder.add(x, builder.mul(k, ir.Constant(_WORD, 4)))
        w_k = builder.add(weights, builder.mul(k, _PANEL_BYTES))
        rows, panels = sorted({row for row, _ in cells}), sorted({panel for _, panel in cells})
        loaded = [_load(builder, w_k, panel_step, panel, _VECTOR) for panel in panels]
        inputs = [_load(builder, x_k, x_step, row, _NUMBER) for row in rows]
        values = [_splat(builder, value, _VECTOR) for value in inputs]
        return [
            builder.fadd(
                total, builder.fmul(values[row], loaded[panel], flags=_FUSED), flags=_FUSED
            )
            for total, (row, panel) in zip(sums, cells, strict=True)
        ]

    return added


def _splat(builder: Any, value: Any, kind: Any) -> Any:  # noqa: ANN401 - llvmlite's
    """A vector of one number."""
    none, first = ir.Constant(kind, ir.Undefined), ir.Constant(ir.IntType(32), 0)
    places = ir.Constant(ir.VectorType(ir.IntType(32), PANEL), [0] * PANEL)
    return builder.shuffle_vector(builder.insert_element(none, value, first), none, places)


def _int8_tile(num_rows: int, num_panels: int) -> Any:  # noqa: ANN401 - numba's intrinsic
    """An intrinsic: the outputs of an int8 layer for some rows and panels (`int8_layers.py`).

    Its arguments are int64: the addresses of the quantised inputs, of their steps, of weights,
    starts, scales and biases, and of the result; the bytes of a row of inputs, of a panel of
    weights and of a row of the result; the number of groups of inputs, at least 1.
    """
    cells = [(row, panel) for row in range(num_rows) for panel in range(num_panels)]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        starts = [_load(builder, args[3], _PANEL_BYTES, panel, _SUMS) for _, panel in cells]
        dots = _dots(builder, args, cells)
        sums = _loop(builder, cells, starts, dots, args[10])
        values = [_rescaled(builder, args, *one) for one in zip(sums, cells, strict=True)]
        _store_positive(builder, args[6], args[9], cells, values)
        return context.get_dummy_value()

    @intrinsic
    def tile(  # numba wants each argument by its name
        typing: Any,  # noqa: ANN401
        x: Any,  # noqa: ANN401
        steps: Any,  # noqa: ANN401
        weights: Any,  # noqa: ANN401
        starts: Any,  # noqa: ANN401
        scales: Any,  # noqa: ANN401
        biases: Any,  # noqa: ANN401
        out: Any,  # noqa: ANN401
        x_step: Any,  # noqa: ANN401
        panel_step: Any,  # noqa: ANN401
        out_step: Any,  # noqa: ANN401
        groups: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        return types.void(*[types.int64] * 11), codegen

    return tile


def _dots(builder: Any, args: Any, cells: list[tuple[int, int]]) -> _Added:  # noqa: ANN401
    """Adds the products of a group of inputs to the sums of an int8 tile."""
    kind = ir.FunctionType(_SUMS, [_SUMS, _BYTES, _BYTES])
    dot = get_or_insert_function(builder.module, kind, DOT)  # type: ignore[no-untyped-call]

    def added(k: Any, sums: list[Any]) -> list[Any]:  # noqa: ANN401
        x_k = builder.add(args[0], builder.mul(k, ir.Constant(_WORD, GROUP)))
        w_k = builder.add(args[2], builder.mul(k, _GROUP_BYTES))
        rows, panels = sorted({row for row, _ in cells}), sorted({panel for _, panel in cells})
        loaded = [_load(builder, w_k, args[8], panel, _BYTES) for panel in panels]
        groups = [_load(builder, x_k, args[7], row, _INT) for row in rows]
        bytes_of = [builder.bitcast(_splat(builder, group, _SUMS), _BYTES) for group in groups]
        return [
            builder.call(dot, [total, bytes_of[row], loaded[panel]])
            for total, (row, panel) in zip(sums, cells, strict=True)
        ]

    return added


def _rescaled(builder: Any, args: Any, total: Any, cell: tuple[int, int]) -> Any:  # noqa: ANN401
    """A sum of integers times the scales of its outputs and the step of its row, plus biases."""
    row, panel = cell
    step = _load(builder, args[1], ir.Constant(_WORD, 4), row, _NUMBER)
    scales = _load(builder, args[4], _PANEL_BYTES, panel, _VECTOR)
    biases = _load(builder, args[5], _PANEL_BYTES, panel, _VECTOR)
    scale = builder.fmul(scales, _splat(builder, step, _VECTOR))
    return builder.fadd(builder.fmul(builder.sitofp(total, _VECTOR), scale), biases)


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


@intrinsic
def _bag_int8(
    typing: Any,  # noqa: ANN401 - numba wants each argument by its name
    ids: Any,  # noqa: ANN401
    num: Any,  # noqa: ANN401
    table: Any,  # noqa: ANN401
    row_bytes: Any,  # noqa: ANN401
    scales: Any,  # noqa: ANN401
    out: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """Add PANEL columns of a bag's rows, each times its scale, to the result, in registers.

    All arguments are int64: addresses of the `num` ids, at least 1, of the first of the columns, of
    the scales and of the result. An id below 0 adds 0.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        ids, num, table, row_bytes, scales, out = args

        def added(k: Any, sums: list[Any]) -> list[Any]:  # noqa: ANN401
            id_at = builder.add(ids, builder.mul(k, ir.Constant(_WORD, 4)))
            found = builder.load(builder.inttoptr(id_at, _INT.as_pointer()), align=4)
            # By bits: of a choice of two floats an AVX2 compiler makes a branch, which is wrong for
            # 17 ids of a pair.
            keeps = builder.not_(builder.ashr(found, ir.Constant(_INT, 31)))
            row = builder.zext(builder.and_(found, keeps), _WORD)
            bits = _load(builder, builder.add(scales, builder.shl(row, _TWO)), _TWO, 0, _INT)
            scale = builder.bitcast(builder.and_(bits, keeps), _NUMBER)
            place = builder.add(table, builder.mul(row, row_bytes))
            values = builder.load(builder.inttoptr(place, _COLUMNS.as_pointer()), align=1)
            floats = builder.sitofp(values, _VECTOR)
            return [builder.fadd(sums[0], builder.fmul(_splat(builder, scale, _VECTOR), floats))]

        place = builder.inttoptr(out, _VECTOR.as_pointer())
        (total,) = _loop(builder, [(0, 0)], [builder.load(place, align=4)], added, num)
        builder.store(total, place, align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), codegen


@intrinsic
def _address(typing: Any, array: Any) -> Any:  # noqa: ANN401 - numba's types
    """The address of an array's first element."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        made = make_array(array)(context, builder, args[0])  # type: ignore[no-untyped-call]
        return builder.ptrtoint(made.data, _WORD)

    return types.int64(array), codegen


@intrinsic
def _call(typing: Any, function: Any, given: Any) -> Any:  # noqa: ANN401 - numba's types
    """Call the C function at an address: arguments and result are int64 or addresses."""
    num = len(given)
    words = types.UniTuple(types.int64, num)  # type: ignore[no-untyped-call]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        kind = ir.FunctionType(_WORD, [_WORD] * num)
        place = builder.inttoptr(args[0], kind.as_pointer())
        return builder.call(place, unpack_tuple(builder, args[1]))  # type: ignore[no-untyped-call]

    return types.int64(types.int64, words), codegen


address: Any = _address
call: Any = _call
bag_int8: Any = _bag_int8
tile_1x4, tile_1x1, tile_4x1 = _tile(1, 4), _tile(1, 1), _tile(4, 1)
int8_tile_1x4, int8_tile_1x1, int8_tile_4x1 = _int8_tile(1, 4), _int8_tile(1, 1), _int8_tile(4, 1)
float_of: Any = _float_of
bits_of: Any = _bits_of
num_bits: Any = _num_bits
u1, u2, u4, u8 = (
    _row_view(kind) for kind in (types.uint8, types.uint16, types.uint32, types.uint64)
)
i1, i4, i8 = (_row_view(kind) for kind in (types.int8, types.int32, types.int64))
f4, f8, flags = (_row_view(kind) for kind in (types.float32, types.float64, types.boolean))
matrix_f4, matrix_u2, matrix_i1 = (
    _matrix_view(kind) for kind in (types.float32, types.uint16, types.int8)
)
