"""Nested python values and arrays as strict JSON text beside a safetensors block: nothing in them can be executed.

JSON holds null, booleans, integers, strings, lists, objects with string keys, and finite floats, each written with
the fewest digits that give the same bits back. Two kinds of object stand for what JSON cannot hold:

``{"$array": "/optimiser/momentum"}``
    the array of that name in the safetensors block (its name is its place in the document, a JSON pointer, RFC 6901);
``{"$float": "nan"}``, ``"inf"``, ``"-inf"``
    a float that is not finite.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import safetensors.numpy

_ARRAY, _FLOAT = "$array", "$float"

ARRAY_DTYPES = frozenset(
    f"{kind}{bits}"
    for kind, sizes in (("int", (8, 16, 32, 64)), ("uint", (8, 16, 32, 64)), ("float", (16, 32, 64)))
    for bits in sizes
) | {"bool"}
"""Names of the dtypes that arrays may have: those that safetensors and numpy share."""


def encode(value: Any, name: str = "value") -> tuple[str, bytes | None]:
    """Write a nested value as JSON text and a block of its arrays.

    Parameters
    ----------
    value : nested dict (string keys), list, tuple, str, int, float, bool, None, numpy scalars and arrays
        Tuples become lists and numpy scalars python ones; everything else comes back as it was, floats to the bit.
    name : str
        What to call the value in an error.

    Returns
    -------
    text : str
        JSON in ASCII.
    block : bytes or None
        The arrays in the safetensors format; None if there are none.

    Raises
    ------
    TypeError
        For anything else; the message names the place in the value.
    """
    arrays: dict[str, np.ndarray] = {}
    tree = _to_json(value, "", name, arrays)
    text = json.dumps(tree, allow_nan=False, separators=(",", ":"))
    return text, (encode_arrays(arrays, name) if arrays else None)


def decode(text: str, block: bytes | None) -> Any:
    """The value that :func:`encode` wrote. The bytes are trusted to be those written: check their checksum first."""
    return _from_json(json.loads(text), {} if block is None else decode_arrays(block))


def encode_arrays(arrays: dict[str, np.ndarray], name: str = "arrays") -> bytes:
    """A dictionary of arrays as one safetensors block, bit for bit.

    Raises
    ------
    TypeError
        If a key is no string or an array has a dtype outside :data:`ARRAY_DTYPES`.
    """
    contiguous = {}
    for key, array in arrays.items():
        array = np.asarray(array, order="C")  # safetensors copies the memory as it lies, strides ignored
        if not isinstance(key, str) or array.dtype.name not in ARRAY_DTYPES:
            raise TypeError(
                f"{name}[{key!r}] is an array of dtype {array.dtype}; a checkpoint stores arrays under string keys "
                f"with one of the dtypes {', '.join(sorted(ARRAY_DTYPES))}: convert it"
            )
        contiguous[key] = array
    return safetensors.numpy.save(contiguous)


def decode_arrays(block: bytes) -> dict[str, np.ndarray]:
    """The arrays of a safetensors block."""
    return safetensors.numpy.load(block)


def _to_json(value: Any, pointer: str, name: str, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, np.ndarray):
        arrays[pointer] = value
        return {_ARRAY: pointer}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if np.isfinite(value) else {_FLOAT: repr(float(value))}
    if isinstance(value, (list, tuple)):
        return [_to_json(item, f"{pointer}/{i}", name, arrays) for i, item in enumerate(value)]
    if isinstance(value, dict):
        tree = {}
        for key, item in value.items():
            if not isinstance(key, str) or key in (_ARRAY, _FLOAT):
                raise TypeError(
                    f"{name} has the key {key!r} at {pointer or '/'}; a checkpoint needs string keys other than "
                    f"{_ARRAY!r} and {_FLOAT!r} (JSON would turn other keys into strings): convert it"
                )
            tree[key] = _to_json(item, f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}", name, arrays)
        return tree
    raise TypeError(
        f"{name} holds a {type(value).__name__} at {pointer or '/'}; a checkpoint stores None, bool, int, float, str, "
        "lists and dictionaries of these, and numpy arrays: convert it"
    )


def _from_json(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(tree, list):
        return [_from_json(item, arrays) for item in tree]
    if isinstance(tree, dict):
        if tree.keys() == {_ARRAY}:
            return arrays[tree[_ARRAY]]
        if tree.keys() == {_FLOAT}:
            return float(tree[_FLOAT])
        return {key: _from_json(item, arrays) for key, item in tree.items()}
    return tree
