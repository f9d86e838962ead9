"""Raw memory as arrays and as vectors, for functions of the library: no allocation.

An array is made of an address and a length; `tile_code` multiplies matrices in registers.
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

    Its arguments: the addresses of x, W, b and of the result; the bytes of a row of x, of a panel
    of W and of a row of the result; the number of inputs. A panel has PANEL outputs of all inputs,
    and all of `num_panels` panels are adjacent.
    """

    @intrinsic
    def tile(
        typing: Any,  # noqa: ANN401
        x: Any,  # noqa: ANN401
        w: Any,  # noqa: ANN401
        b: Any,  # noqa: ANN401
        out: Any,  # noqa: ANN401
        x_step: Any,  # noqa: ANN401
        w_step: Any,  # noqa: ANN401
        out_step: Any,  # noqa: ANN401
        inputs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        return types.void(*[types.int64] * 8), _tile_code(num_rows, num_panels)

    return tile


def _tile_code(num_rows: int, num_panels: int) -> _Codegen:
    """Code of a loop over the inputs, with a vector of sums for each row and panel.

    Each sum adds the inputs in order, so a row has the same bits in every shape of tile.
    """
    vector, number, word = ir.VectorType(ir.FloatType(), PANEL), ir.FloatType(), ir.IntType(64)
    cells = [(row, panel) for row in range(num_rows) for panel in range(num_panels)]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        x, w, b, out, x_step, w_step, out_step, inputs = args

        def constant(value: int) -> Any:  # noqa: ANN401
            return ir.Constant(word, value)

        def pointer(base: Any, step: Any, times: int, kind: Any) -> Any:  # noqa: ANN401
            place = builder.add(base, builder.mul(step, constant(times)))
            return builder.inttoptr(place, kind.as_pointer())

        panel_bytes = constant(4 * PANEL)
        starts = [
            builder.load(pointer(b, panel_bytes, panel, vector), align=4) for _, panel in cells
        ]
        before, loop = builder.block, builder.append_basic_block("tile")
        after = builder.append_basic_block("tile.end")
        builder.branch(loop)
        builder.position_at_end(loop)
        k, sums = builder.phi(word), [builder.phi(vector) for _ in cells]
        weights = [
            builder.load(
                pointer(builder.add(w, builder.mul(k, panel_bytes)), w_step, panel, vector), align=4
            )
            for panel in range(num_panels)
        ]
        x_k = builder.add(x, builder.mul(k, constant(4)))
        values = [_splat(builder, builder.load(pointer(x_k, x_step, row, number), align=4), vector)
                  for row in range(num_rows)]  # fmt: skip
        added = [
            builder.fadd(
                total, builder.fmul(values[row], weights[panel], flags=_FUSED), flags=_FUSED
            )
            for total, (row, panel) in zip(sums, cells, strict=True)
        ]
        following = builder.add(k, constant(1))
        for phi, start, more in zip([k, *sums], [constant(0), *starts], [following, *added],
                                    strict=True):  # fmt: skip
            phi.add_incoming(start, before)
            phi.add_incoming(more, loop)
        builder.cbranch(builder.icmp_signed("<", following, inputs), loop, after)
        builder.position_at_end(after)
        zero = ir.Constant(vector, [0.0] * PANEL)
        for total, (row, panel) in zip(added, cells, strict=True):
            place = builder.add(out, builder.mul(out_step, constant(row)))
            positive = builder.select(builder.fcmp_ordered(">", total, zero), total, zero)
            builder.store(positive, pointer(place, panel_bytes, panel, vector), align=4)
        return context.get_dummy_value()

    return codegen


def _splat(builder: Any, value: Any, vector: Any) -> Any:  # noqa: ANN401 - llvmlite's
    """A vector of one number."""
    one = builder.insert_element(
        ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
    )
    places = ir.Constant(ir.VectorType(ir.IntType(32), PANEL), [0] * PANEL)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), places)


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
