"""Intrinsics of numba that begin to load memory which is read soon, and wait for nothing."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

_INT, _WORD = ir.IntType(32), ir.IntType(64)


def _load_line(builder: Any, address: Any) -> None:  # noqa: ANN401 - llvmlite's
    pointer = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer, _INT, _INT, _INT])
    named = get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")  # type: ignore[no-untyped-call]
    read, all_caches, data = (ir.Constant(_INT, value) for value in (0, 3, 1))
    builder.call(named, [builder.inttoptr(address, pointer), read, all_caches, data])


@intrinsic
def _prefetch(typing: Any, address: Any) -> Any:  # noqa: ANN401 - numba's types
    """Begin to load the cache line of an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        _load_line(builder, args[0])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def _prefetch_item(typing: Any, array: Any, at: Any) -> Any:  # noqa: ANN401 - numba's types
    """Begin to load the cache line of `array[at]`, of one dimension."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        start = make_array(array)(context, builder, args[0]).data  # type: ignore[no-untyped-call]
        _load_line(builder, builder.ptrtoint(builder.gep(start, [args[1]]), _WORD))
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


prefetch: Any = _prefetch
prefetch_item: Any = _prefetch_item
