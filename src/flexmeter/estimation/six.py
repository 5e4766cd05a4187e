"""A row of six in a vector register: what the 6x6 blocks of one scenario are loaded into, see `rows`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from flexmeter.powerflow.lanes import FloatArray, WorkArray

if TYPE_CHECKING:

    def load_six(array: WorkArray, item: int) -> float:
        """Return six neighbouring items of a work array of one scenario."""

    def store_six(array: WorkArray, item: int, value: float) -> None:
        """Write six neighbouring items of a work array of one scenario."""

    def row_of_six(matrix: FloatArray, row: int) -> float:
        """Return a row of a 6x6 array."""

    def spread(six: float, index: int) -> float:
        """Return one of six in every place."""

    def transposed(rows: tuple[float, ...]) -> tuple[float, float, float, float, float, float]:
        """Return the columns of six rows of six."""

else:
    from flexmeter.powerflow.vectors import Vector, converted, data_of, machine_type, read, row_pointer, shuffled

    six, _INDEX = Vector(6), ir.IntType(32)

    @intrinsic
    def load_six(typing_context, array, item):
        def code(context, builder, signature, arguments):
            data = data_of(context, builder, signature.args[0], arguments[0])
            return read(builder, builder.gep(data, [arguments[1]]), ir.Constant(_INDEX, 0), six)

        return six(array, types.intp), code

    @intrinsic
    def store_six(typing_context, array, item, value):
        def code(context, builder, signature, arguments):
            data = data_of(context, builder, signature.args[0], arguments[0])
            target = builder.bitcast(builder.gep(data, [arguments[1]]), machine_type(six).as_pointer())
            builder.store(arguments[2], target).align = 8
            return context.get_dummy_value()

        return types.void(array, types.intp, six), code

    @intrinsic
    def row_of_six(typing_context, matrix, row):
        def code(context, builder, signature, arguments):
            zero = ir.Constant(arguments[1].type, 0)
            pointer = row_pointer(context, builder, signature.args[0], arguments[0], arguments[1], zero)
            return read(builder, pointer, ir.Constant(_INDEX, 0), six)

        return six(matrix, types.intp), code

    @intrinsic
    def spread(typing_context, value, index):
        def code(context, builder, signature, arguments):
            number = builder.extract_element(arguments[0], arguments[1])
            return converted(builder, number, types.float64, six)

        return six(six, types.intp), code

    @intrinsic
    def transposed(typing_context, rows):
        def code(context, builder, signature, arguments):
            parts = cgutils.unpack_tuple(builder, arguments[0], 6)
            pairs = ir.Constant(ir.VectorType(_INDEX, 12), list(range(12)))
            halves = [builder.shuffle_vector(parts[k], parts[k + 1], pairs) for k in (0, 2, 4)]
            columns = []
            for column in range(6):
                places = [column, column + 6]
                two = [shuffled(builder, half, places) for half in halves]
                four = builder.shuffle_vector(two[0], two[1], ir.Constant(ir.VectorType(_INDEX, 4), [0, 1, 2, 3]))
                last = shuffled(builder, two[2], [0, 1, 1, 1])
                index = ir.Constant(ir.VectorType(_INDEX, 6), [0, 1, 2, 3, 4, 5])
                columns.append(builder.shuffle_vector(four, last, index))
            return context.make_tuple(builder, signature.return_type, columns)

        kind = types.UniTuple(six, 6)
        return kind(kind), code
