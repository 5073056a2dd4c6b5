"""Names of a package that are imported when they are first asked for."""

from __future__ import annotations

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def names_on_demand(package: str, file: str) -> Callable[[str], Any]:
    """The `__getattr__` of a package: it makes the imports that stand under ``if TYPE_CHECKING`` in its `__init__`.

    Parameters
    ----------
    package, file : str
        `__name__` and `__file__` of the package.
    """
    where: dict[str, tuple[str, str | None]] = {}
    for block in ast.parse(Path(file).read_text(encoding="utf-8")).body:
        for node in block.body if isinstance(block, ast.If) else []:
            if isinstance(node, ast.ImportFrom) and node.module:
                where.update({alias.name: (node.module, alias.name) for alias in node.names})
            elif isinstance(node, ast.Import):
                where.update({alias.asname or alias.name: (alias.name, None) for alias in node.names})

    def find(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, attribute = where[name]
        found = import_module(module)
        return found if attribute is None else getattr(found, attribute)

    return find
