"""Other programs' packages, needed only by the readers and writers that speak their language."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from flexmeter.errors import InputError


def optional_module(name: str, purpose: str) -> ModuleType:
    """Import a package that is not part of the product, or say how to get it."""
    try:
        return import_module(name)
    except ImportError as error:
        package = (error.name or name).partition(".")[0].replace("_", "-")
        raise InputError(f"{purpose} needs the package {package}: pip install 'flexmeter[peers]'") from error
