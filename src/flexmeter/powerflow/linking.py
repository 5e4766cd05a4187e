"""Compile a kernel as one piece: what it is made of is translated, then optimised and turned into machine code once.

Numba optimises every function and makes machine code of it, and optimises it again in each function that calls it, and
in those that call these; a kernel of three hundred functions spends most of its compile time so. Here a function that
only kernels call stays as numba translates it, and the kernel takes in all of them at once
(docs/decisions/015-kernels-in-one-piece.md).

This stands on parts of numba that it does not promise to keep: `compiling` asks for it with one version only.
"""

from __future__ import annotations

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler


class Piece(JITCodeLibrary):
    """A function that only kernels call: code to link, nothing that could run."""

    def finalize(self):
        """Leave the code as it is."""
        self._finalized = True

    def get_pointer_to_function(self, _name):
        """Return the address that stands for no machine code."""
        return 0

    @property
    def codegen(self):
        """Itself: numba asks here for `set_env` only."""
        return self

    def set_env(self, name, environment):
        """Do nothing: there is no machine code yet that holds the address."""


class Whole(JITCodeLibrary):
    """A kernel, with all that it is made of."""

    def finalize(self):
        """Link everything below, whatever calls it, before the optimiser runs."""
        self._linking_libraries = _below(self)
        super().finalize()

    def _optimize_final_module(self):
        super()._optimize_final_module()
        if any(isinstance(library, Piece) for library in self._linking_libraries):
            # a second round finds what the first one's inlining has opened up: up to 8 % of the time of an estimate
            manager, builder = self._codegen._module_pass_manager()
            manager.run(self._final_module, builder)


def _below(library):
    """Return all libraries that one is made of, callers first: a function that nobody calls yet is not linked."""
    order = {}

    def visit(caller):
        for called in caller._linking_libraries:
            if called not in order:
                if isinstance(called, Piece):
                    visit(called)
                order[called] = None

    visit(library)
    return list(reversed(order))


def _compiler(kind):
    """Return numba's compiler with another library to put the code into."""

    class IntoLibrary(Compiler):
        def compile_extra(self, func):
            self.state.library = kind(self.state.targetctx.codegen(), func.__qualname__)
            self.state.library.enable_object_caching()
            return super().compile_extra(func)

    return IntoLibrary


PIECE = {"pipeline_class": _compiler(Piece)}
"""Options of numba for a function that only kernels call."""
WHOLE = {"pipeline_class": _compiler(Whole)}
"""Options of numba for a kernel."""
