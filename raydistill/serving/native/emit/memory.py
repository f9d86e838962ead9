"""Raw memory as arrays, for functions of the library: an address and a length, no allocation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.core import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

_Codegen = Callable[..., Any]


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


float_of: Any = _float_of
u1, u2, u4, u8 = (
    _row_view(kind) for kind in (types.uint8, types.uint16, types.uint32, types.uint64)
)
i1, i4, i8 = (_row_view(kind) for kind in (types.int8, types.int32, types.int64))
f4, f8, flags = (_row_view(kind) for kind in (types.float32, types.float64, types.boolean))
matrix_f4, matrix_u2, matrix_i1 = (
    _matrix_view(kind) for kind in (types.float32, types.uint16, types.int8)
)
