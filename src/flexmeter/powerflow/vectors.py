"""Vector registers as a number type for compiled code: arithmetic, and the pieces of loads and stores.

A number meets a vector as the same number in every place. See `lanes` and `estimation.six` for what is loaded.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba import types
from numba.core.imputils import lower_cast
from numba.core.typeconv import Conversion
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model

_FAST = ("reassoc", "contract", "arcp", "nsz")
"""No assumption that nan cannot be, a missing reading is nan; but x - x is 0 for any x: `intake` looks at x * x."""
_INDEX = ir.IntType(32)


class Vector(types.Type):
    """Numba's view of a vector register: of lanes, or of six neighbouring items."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(f"Vector({width})")

    def can_convert_from(self, _typing_context, other):
        """Return whether a value of another type may stand where this one is wanted."""
        return Conversion.safe if other == types.float64 else None


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type) -> None:
        super().__init__(manager, fe_type, ir.VectorType(ir.DoubleType(), fe_type.width))


def widest(*kinds):
    """Return the vector type among some types, or float64."""
    return next((kind for kind in kinds if isinstance(kind, Vector)), types.float64)


def machine_type(kind):
    """Return the type LLVM knows a type by."""
    return ir.VectorType(ir.DoubleType(), kind.width) if isinstance(kind, Vector) else ir.DoubleType()


def shuffled(builder, value, places):
    """Return the places of a vector as a vector."""
    return builder.shuffle_vector(
        value,
        ir.Constant(value.type, ir.Undefined),
        ir.Constant(ir.VectorType(_INDEX, len(places)), list(places)),
    )


def converted(builder, value, source, kind):
    """Return a value as another type: a number becomes the same in every lane."""
    if source == kind:
        return value
    undefined = ir.Constant(machine_type(kind), ir.Undefined)
    one = builder.insert_element(undefined, value, ir.Constant(_INDEX, 0))
    return shuffled(builder, one, [0] * kind.width)


@lower_cast(types.float64, Vector)
def _cast(context, builder, source, kind, value):
    return converted(builder, value, source, kind)


def data_of(context, builder, array_type, array):
    """Return the address of an array's first number."""
    return context.data_model_manager[array_type].get(builder, array, "data")


def read(builder, data, item, kind):
    """Return a value that lies at an item of an address, wherever that is aligned."""
    value = builder.load(builder.gep(builder.bitcast(data, machine_type(kind).as_pointer()), [item]))
    value.align = 8
    return value


def row_pointer(context, builder, array_type, array, row, column):
    """Return the address of a place in a 2-d array."""
    model = context.data_model_manager[array_type]
    size = builder.extract_value(model.get(builder, array, "shape"), 1)
    return builder.gep(model.get(builder, array, "data"), [builder.add(builder.mul(row, size), column)])


def _operator(symbol, instruction) -> None:
    @infer_global(symbol)
    class _Typing(AbstractTemplate):
        def generic(self, arguments, _keywords):
            kind = widest(*arguments)
            if kind == types.float64 or len(arguments) != 2:
                return None
            return signature(kind, *(side if side == kind else types.float64 for side in arguments))

    def code(context, builder, kinds, arguments):
        sides = [
            converted(builder, value, source, kinds.return_type)
            for source, value in zip(kinds.args, arguments, strict=True)
        ]
        return getattr(builder, instruction)(*sides, flags=_FAST)

    for left, right in ((Vector, Vector), (Vector, types.float64), (types.float64, Vector)):
        lower_builtin(symbol, left, right)(code)


@infer_global(operator.neg)
class _NegativeTyping(AbstractTemplate):
    def generic(self, arguments, _keywords):
        return signature(arguments[0], arguments[0]) if isinstance(arguments[0], Vector) else None


@lower_builtin(operator.neg, Vector)
def _negative(context, builder, kinds, arguments):
    return builder.fneg(arguments[0], flags=_FAST)


_operator(operator.add, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")
_operator(operator.truediv, "fdiv")
