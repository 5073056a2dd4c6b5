"""A hash of the content of objects that is the same in every process: pickled bytes differ from process to process."""

from __future__ import annotations

import hashlib
import inspect
import types
from collections.abc import Mapping

import numpy as np
from openpathsampling.collectivevariable import CallableCV
from openpathsampling.netcdfplus import StorableObject

from ops_aimmd.engines.choose import adapter_of
from ops_aimmd.engines.frames import has_unit, without_unit


def fingerprint(thing) -> str:
    """SHA-256 of the content of an object, in hexadecimal digits.

    Equal for OPS objects that were set up alike, whatever their uuids, also for those that were stored and read again.
    Importable functions and classes count by their name, others by their code and all that it refers to. Other objects than
    those of OPS, functions, plain values, arrays and nestings of these count by what `pickle` would keep of them, or by
    their class alone.
    """
    walker = _Walker()
    walker.visit(thing)
    return walker.sha.hexdigest()


class _Walker:
    def __init__(self):
        self.sha = hashlib.sha256()
        self._numbers: dict[int, int] = {}
        self._alive: list = []  # or an id would come back as that of another object

    def visit(self, thing) -> None:
        if isinstance(thing, np.generic):
            thing = thing.item()
        if thing is None or isinstance(thing, (bool, int, float, complex, str, bytes)):
            self._write(type(thing).__name__, thing)
        elif isinstance(thing, (list, tuple)):
            self._write("list", len(thing))
            for item in thing:
                self.visit(item)
        elif id(thing) in self._numbers:
            self._write("again", self._numbers[id(thing)])
        else:
            self._numbers[id(thing)] = len(self._numbers)
            self._alive.append(thing)
            self._visit_object(thing)

    def _write(self, kind: str, value) -> None:
        self.sha.update(f"{kind} {value!r}\n".encode())

    def _visit_object(self, thing) -> None:
        if isinstance(thing, Mapping):
            self._visit_mapping(thing)
        elif isinstance(thing, (set, frozenset)):
            self.visit(sorted(fingerprint(item) for item in thing))
        elif isinstance(thing, np.ndarray) and thing.dtype != object:
            self._write("array", (thing.dtype.str, thing.shape))
            self.sha.update(np.ascontiguousarray(thing).tobytes())
        elif has_unit(thing):
            self.visit(["quantity", str(thing.unit), without_unit(thing)])
        elif isinstance(thing, types.ModuleType):
            self._write("module", thing.__name__)
        elif isinstance(thing, types.CodeType):
            self.visit([thing.co_code, thing.co_consts, thing.co_names, thing.co_varnames])
        elif isinstance(thing, types.FunctionType):
            self._visit_function(thing)
        elif isinstance(thing, (type, types.BuiltinFunctionType, np.ufunc)):
            self._write("name", thing.__qualname__ if isinstance(thing, type) else thing.__name__)
        elif isinstance(thing, StorableObject):
            self._write("storable", thing.__class__.__name__)
            self._visit_mapping(adapter_of(thing).lasting_content(content_of(thing)))
        else:
            self._visit_other(thing)

    def _visit_mapping(self, thing: Mapping) -> None:
        self._write("mapping", len(thing))
        for key in sorted(thing, key=str):
            self.visit(str(key))
            self.visit(thing[key])

    def _visit_function(self, function: types.FunctionType) -> None:
        if is_importable(function):
            self._write("function", (function.__module__, function.__qualname__))
            return
        outside = inspect.getclosurevars(function)
        self.visit([function.__code__, function.__defaults__, function.__kwdefaults__])
        self.visit({**outside.globals, **outside.nonlocals})

    def _visit_other(self, thing) -> None:
        self._write("object", type(thing).__qualname__)
        try:
            parts = thing.__reduce_ex__(2)
        except Exception:  # what cannot be taken apart, whatever the reason, counts by its class
            return
        self.visit(parts if isinstance(parts, str) else [part for part in parts[1:3] if part is not None])


def content_of(thing: StorableObject) -> dict:
    """What defines an object of OPS: what its `from_dict` needs, with functions as they are, not in OPS's bytecode."""
    if not isinstance(thing, CallableCV):
        return thing.to_dict()
    return {**{name: getattr(thing, name) for name in thing.args()[1:]}, "kwargs": thing.kwargs}


def is_importable(function) -> bool:
    """Whether another process finds a function under its name."""
    return (
        function.__module__ not in (None, "__main__", "__mp_main__")
        and "<" not in function.__qualname__  # no lambda, nothing from inside another function
    )
