"""Registers of several numbers, in LLVM's language."""

from collections.abc import Mapping
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic

_features = llvmlite.binding.get_host_cpu_features()
LANES = 16 if _features.get("avx512f") else 8 if _features.get("avx") else 4
"""Numbers in a register."""
REGISTERS = 16 if _features.get("sse2") and LANES < 16 else 32

intrinsic: Any = _intrinsic
"""Numba's, whose first argument is not the caller's."""

F32, I16, I32, I64 = ir.FloatType(), ir.IntType(16), ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(F32, LANES)


def phi(builder: Any, kind: Any, incoming: Mapping[Any, Any]) -> Any:
    """A value that depends on where its block was entered from."""
    value = builder.phi(kind)
    for block, given in incoming.items():
        value.add_incoming(given, block)
    return value


def spread(builder: Any, value: Any) -> Any:
    """One value in every lane."""
    none = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
    first = builder.insert_element(none, value, I32(0))
    return builder.shuffle_vector(first, none, ir.Constant(ir.VectorType(I32, LANES), [0] * LANES))


def constant(value: float) -> Any:
    """A number in every lane."""
    return ir.Constant(VECTOR, [value] * LANES)


def call(builder: Any, name: str, *values: Any) -> Any:
    """One of LLVM's own functions of vectors, such as ``fmuladd``."""
    kind = ir.FunctionType(VECTOR, [VECTOR] * len(values))
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f32")
    return builder.call(function, values)


def prefetch(builder: Any, at: Any) -> None:
    """Ask for a line that is read soon, into the core's second cache.

    The first has few places for lines that are under way: asked into that, they wait for memory one
    behind the other, and what is multiplied meanwhile waits with them.
    """
    pointer = builder.inttoptr(at, VECTOR.as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, I32, I32, I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(function, [pointer, I32(0), I32(2), I32(1)])


class Memory:
    """Reads and writes whole registers of float32, or their first columns alone."""

    def __init__(self, builder: Any, columns: Any | None = None) -> None:
        self._builder, self._mask = builder, None
        if columns is not None:
            lanes = ir.Constant(ir.VectorType(I64, LANES), list(range(LANES)))
            self._mask = builder.icmp_signed("<", lanes, spread(builder, columns))

    def load(self, at: Any) -> Any:
        """A register, from an address; columns that are not there are zero."""
        return self._load(at, F32)

    def load_bfloat16(self, at: Any) -> Any:
        """The same from bfloat16, which is the upper half of a float32."""
        wide = ir.VectorType(I32, LANES)
        bits = self._builder.zext(self._load(at, I16), wide)
        bits = self._builder.shl(bits, ir.Constant(wide, [16] * LANES))
        return self._builder.bitcast(bits, VECTOR)

    def _load(self, at: Any, number: Any) -> Any:
        vector, size = ir.VectorType(number, LANES), 2 if number == I16 else 4
        pointer = self._builder.inttoptr(at, vector.as_pointer())
        if self._mask is None:
            return self._builder.load(pointer, align=size)
        kind = ir.FunctionType(vector, [pointer.type, I32, self._mask.type, vector])
        return self._builder.call(
            self._own("load", vector, kind),
            [pointer, I32(size), self._mask, ir.Constant(vector, [number(0)] * LANES)],
        )

    def store(self, value: Any, at: Any) -> None:
        """A register, to an address."""
        pointer = self._builder.inttoptr(at, VECTOR.as_pointer())
        if self._mask is None:
            self._builder.store(value, pointer, align=4)
            return
        kind = ir.FunctionType(ir.VoidType(), [VECTOR, pointer.type, I32, self._mask.type])
        self._builder.call(self._own("store", VECTOR, kind), [value, pointer, I32(4), self._mask])

    def _own(self, what: str, vector: Any, kind: Any) -> Any:
        name = f"llvm.masked.{what}.v{LANES}{'i16' if vector.element == I16 else 'f32'}.p0"
        return cgutils.get_or_insert_function(self._builder.module, kind, name)
