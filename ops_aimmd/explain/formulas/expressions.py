r"""Expressions: trees of operations on the inputs, with constants that can be fitted.

A tree is made of `Node`; a `Tape` is the same tree in the order of evaluation. One sweep forward gives the value
:math:`q` of the expression, one sweep back the derivatives :math:`D_s = \partial q / \partial s` by every node s. Those by
the constants are the columns of the Jacobian.

An expression is defined only where every logarithm and root has a positive argument and where no denominator changes its
sign: `Tape.forward` raises `OutsideDomain` for rows on both sides of a pole, since a formula that fits them is no
smooth function of the configurations between them.

A constant is fitted; a number (0, 1, -1, 2) is part of the form. Files are JSON and nothing in them is executed.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

UNARY = ("exp", "log", "sqrt", "square")
BINARY = ("add", "sub", "mul", "div")
LEAVES = ("input", "constant", "number")

DEEPEST = 200
"""Levels of nesting that are read from a file."""


class OutsideDomain(ArithmeticError):
    """The expression is undefined, or has a pole, within the rows it was evaluated on."""


class Node(NamedTuple):
    """A node of an expression: an operation of `UNARY` or `BINARY` with its arguments, or a leaf of `LEAVES`.

    ``value`` is that of a constant or number, or the column of an input.
    """

    op: str
    args: tuple = ()
    value: float = 0.0

    @property
    def size(self) -> int:
        """Number of nodes."""
        return 1 + sum(arg.size for arg in self.args)

    @property
    def has_constants(self) -> bool:
        return self.op == "constant" or any(arg.has_constants for arg in self.args)

    def __add__(self, other: Node) -> Node:
        return Node("add", (self, other))

    def __sub__(self, other: Node) -> Node:
        return Node("sub", (self, other))

    def __mul__(self, other: Node) -> Node:
        return Node("mul", (self, other))

    def __truediv__(self, other: Node) -> Node:
        return Node("div", (self, other))


def x(column: int) -> Node:
    """An input."""
    return Node("input", (), int(column))


def constant(value: float) -> Node:
    """A constant, to be fitted from this value on."""
    return Node("constant", (), float(value))


def number(value: float) -> Node:
    """A number, which belongs to the form."""
    return Node("number", (), float(value))


def _operation(op: str) -> Callable[..., Node]:
    """Function that applies an operation to its arguments."""
    return lambda *args: Node(op, args)


exp, log, sqrt, square = map(_operation, UNARY)


def subtrees(node: Node, path: tuple = ()) -> Iterator[tuple[tuple, Node]]:
    """Every node with its path from the root, in the order of the tape: children first."""
    for k, arg in enumerate(node.args):
        yield from subtrees(arg, (*path, k))
    yield path, node


def replace(node: Node, path: tuple, new: Node) -> Node:
    """The tree with another sub-tree at ``path``."""
    if not path:
        return new
    args = list(node.args)
    args[path[0]] = replace(args[path[0]], path[1:], new)
    return Node(node.op, tuple(args), node.value)


def at(node: Node, path: tuple) -> Node:
    """The sub-tree at ``path``."""
    for k in path:
        node = node.args[k]
    return node


def inputs(node: Node) -> tuple[int, ...]:
    """Columns that the expression depends on, in ascending order."""
    return tuple(sorted({int(leaf.value) for _, leaf in subtrees(node) if leaf.op == "input"}))


def constants(node: Node) -> np.ndarray:
    """Values of the constants, in the order of the tape."""
    return np.array([leaf.value for _, leaf in subtrees(node) if leaf.op == "constant"], dtype=np.float64)


def with_constants(node: Node, values: Sequence[float]) -> Node:
    """The tree with other values of its constants."""
    remaining = iter(values)

    def rebuild(part: Node) -> Node:
        if part.op == "constant":
            return constant(next(remaining))
        return Node(part.op, tuple(rebuild(arg) for arg in part.args), part.value) if part.args else part

    return rebuild(node)


def with_inputs(node: Node, columns: Sequence[int]) -> Node:
    """The tree with input i renamed to ``columns[i]``."""
    if node.op == "input":
        return x(columns[int(node.value)])
    return Node(node.op, tuple(with_inputs(arg, columns) for arg in node.args), node.value) if node.args else node


_SYMBOLS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


def skeleton(node: Node) -> str:
    """The form of the expression, in which all constants are alike; equal forms have equal skeletons."""
    if node.op == "constant":
        return "c"
    if node.op == "number":
        return f"{node.value:g}"
    if node.op == "input":
        return f"x{int(node.value)}"
    if node.op in UNARY:
        return f"{node.op}({skeleton(node.args[0])})"
    return f"({skeleton(node.args[0])}{_SYMBOLS[node.op]}{skeleton(node.args[1])})"


CODE = {
    "input": 0.30,
    "constant": 0.16,
    "number": 0.06,
    "add": 0.14,
    "mul": 0.14,
    "div": 0.06,
    "sub": 0.03,
    "exp": 0.03,
    "log": 0.03,
    "square": 0.03,
    "sqrt": 0.02,
}
"""Probability of each kind of node, about as often as formulas of physics have them; they sum to one."""


def code_length(node: Node, n_inputs: int) -> float:
    """Nats that it takes to write down the form: the negative logarithm of the probability of drawing it at random.

    Every node is drawn from `CODE`, an input with equal probability from all ``n_inputs``. The probabilities of all forms
    sum to at most one, so that among any number of forms the chance that one looks better than the truth by more than its
    code length is bounded (Rissanen 1978, doi:10.1016/0005-1098(78)90005-5). Values of constants are not included.
    """
    return sum(-math.log(CODE[part.op]) + (math.log(n_inputs) if part.op == "input" else 0.0) for _, part in subtrees(node))


def _is_positive(values) -> bool:
    return (np.minimum.reduce(values) if isinstance(values, np.ndarray) else values) > 0


def _where_positive(function: Callable) -> Callable:
    def checked(a):
        if not _is_positive(a):
            raise OutsideDomain
        return function(a)

    return checked


def _div(a, b):
    if not (_is_positive(b) or _is_positive(-b)):
        raise OutsideDomain
    return a / b


_FORWARD: dict[str, Callable] = {
    "exp": np.exp,
    "log": _where_positive(np.log),
    "sqrt": _where_positive(np.sqrt),
    "square": np.square,
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": _div,
}

_BACKWARD: dict[str, tuple[Callable, ...]] = {
    "exp": (lambda d, v, a: d * v,),
    "log": (lambda d, v, a: d / a,),
    "sqrt": (lambda d, v, a: 0.5 * d / v,),
    "square": (lambda d, v, a: 2.0 * d * a,),
    "add": (lambda d, v, a, b: d, lambda d, v, a, b: d),
    "sub": (lambda d, v, a, b: d, lambda d, v, a, b: -d),
    "mul": (lambda d, v, a, b: d * b, lambda d, v, a, b: d * a),
    "div": (lambda d, v, a, b: d / b, lambda d, v, a, b: -d * v / b),
}
"""For each argument: derivative by it, from the derivative d by the node, its value v and its arguments."""


class Tape:
    """An expression in the order of evaluation, with its constants (k,)."""

    def __init__(self, node: Node):
        self.ops: list[str] = []
        self.args: list[tuple[int, ...]] = []
        self.values: list[float] = []
        self.varying: list[bool] = []
        self._append(node)
        self.constant_positions = [k for k, op in enumerate(self.ops) if op == "constant"]
        self.constants = np.array([self.values[k] for k in self.constant_positions], dtype=np.float64)

    def _append(self, node: Node) -> int:
        positions = tuple([self._append(arg) for arg in node.args])
        self.ops.append(node.op)
        self.args.append(positions)
        self.values.append(int(node.value) if node.op == "input" else node.value)
        self.varying.append(node.op == "constant" or any([self.varying[k] for k in positions]))
        return len(self.ops) - 1

    def forward(self, columns: np.ndarray, constants: np.ndarray) -> list:
        """Values of all nodes, the root last, for inputs (d, n) and constants (k,).

        They are arrays (n,), and floats where a node does not depend on the inputs. Raises `OutsideDomain`.
        """
        values = list(self.values)
        for position, value in zip(self.constant_positions, constants.tolist(), strict=True):
            values[position] = value
        for k, (op, args) in enumerate(zip(self.ops, self.args, strict=True)):
            if args:
                values[k] = _FORWARD[op](*[values[arg] for arg in args])
            elif op == "input":
                values[k] = columns[values[k]]
        return values

    def backward(self, values: list, all_nodes: bool = False) -> list:
        """Derivatives of the root by each node; None for nodes without constants below them, unless all are wanted."""
        adjoints: list = [None] * len(self.ops)
        adjoints[-1] = 1.0
        for k in range(len(self.ops) - 1, -1, -1):
            args, adjoint = self.args[k], adjoints[k]
            if not args or adjoint is None:
                continue
            below = [values[arg] for arg in args]
            for arg, rule in zip(args, _BACKWARD[self.ops[k]], strict=True):
                if all_nodes or self.varying[arg]:
                    adjoints[arg] = rule(adjoint, values[k], *below)
        return adjoints

    def jacobian(self, adjoints: list, n: int) -> np.ndarray:
        """Derivatives by the constants, shape (k, n)."""
        jacobian = np.empty((len(self.constant_positions), n))
        for row, position in enumerate(self.constant_positions):
            jacobian[row] = adjoints[position]
        return jacobian


def evaluate(node: Node, columns: np.ndarray) -> np.ndarray:
    """Value (n,) of an expression on inputs (d, n); raises `OutsideDomain`."""
    tape = Tape(node)
    with np.errstate(all="ignore"):
        return np.broadcast_to(tape.forward(columns, tape.constants)[-1], columns.shape[1:]).astype(np.float64)


def to_json(node: Node):
    """The tree as plain JSON types: lists of an operation and its arguments; leaves are ``["input", 3]``."""
    if node.op in LEAVES:
        return [node.op, int(node.value) if node.op == "input" else float(node.value)]
    return [node.op, *(to_json(arg) for arg in node.args)]


def from_json(tree, n_inputs: int, depth: int = 0) -> Node:
    """Rebuild a tree from `to_json`; everything is checked and nothing executed.

    Raises ValueError for anything that `to_json` would not have written.
    """
    if depth > DEEPEST or not isinstance(tree, list) or not tree or not isinstance(tree[0], str):
        raise ValueError(
            f"an expression in a file must be a list [operation, ...] of at most {DEEPEST} levels; got {tree!r:.80}"
        )
    op, *args = tree
    if op in LEAVES:
        is_number = len(args) == 1 and isinstance(args[0], int | float) and not isinstance(args[0], bool)
        if not is_number or not math.isfinite(args[0]):
            raise ValueError(f"{op!r} in a file needs one finite number; got {args!r:.80}")
        if op == "input" and (not isinstance(args[0], int) or not 0 <= args[0] < n_inputs):
            raise ValueError(f"inputs must be integers 0..{n_inputs - 1}; got {args[0]!r}")
        return x(args[0]) if op == "input" else Node(op, (), float(args[0]))
    expected = 1 if op in UNARY else 2 if op in BINARY else None
    if expected is None or len(args) != expected:
        raise ValueError(f"unknown operation {op!r:.40} with {len(args)} arguments; known are {UNARY} and {BINARY}")
    return Node(op, tuple(from_json(arg, n_inputs, depth + 1) for arg in args))


def to_sympy(node: Node, symbols: Sequence):
    """The expression in sympy, with one sympy.Symbol for each input."""
    import sympy

    functions = {op: getattr(sympy, op) for op in ("exp", "log", "sqrt")}
    functions |= {op: getattr(operator, op) for op in ("add", "sub", "mul")}
    functions |= {"square": lambda a: a**2, "div": operator.truediv}
    if node.op == "input":
        return symbols[int(node.value)]
    if node.op == "number" and node.value == int(node.value):
        return sympy.Integer(int(node.value))
    if node.op in ("number", "constant"):
        return sympy.Float(node.value)
    return functions[node.op](*(to_sympy(arg, symbols) for arg in node.args))
