r"""Genetic programming by pyoperon, an optional engine (Burlacu, Kronberger and Kommenda, GECCO 2020,
doi:10.1145/3377929.3398099).

Operon is fast and knows least squares only, so it is asked in rounds. With the log-odds q of the best expression so far and
the fraction y of legs that reached the last state, it fits Fisher scoring's working response

.. math::  z = q + \frac{y - p}{p (1 - p)}, \qquad W = N p (1 - p),

on rows drawn in proportion to their weight W: to second order around q, the least-squares fit of z is the fit of the
likelihood (Green 1984, doi:10.1111/j.2517-6161.1984.tb01288.x). It only proposes forms, along a front of error against
length. Their constants are fitted, and what they do not need is pruned, under the likelihood itself. Every other round fits
z - q by short expressions, proposals for one more term: whole expressions alone stop short of forms with many terms.
"""

from __future__ import annotations

import functools
import importlib
import math
import operator
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from scipy.special import expit

from ops_aimmd.explain.formulas.archive import Archive
from ops_aimmd.explain.formulas.constants import Shots
from ops_aimmd.explain.formulas.expressions import Node, constant, evaluate, x
from ops_aimmd.explain.formulas.simplify import ROUND_VALUES

SUPPORTED = "0.4."
"""Versions of pyoperon: 0.3 has another interface, and from 0.5 on it needs numpy 2."""

FIRST_ROUND, GROWTH, LONGEST_ROUND = 20_000, 2, 400_000
"""Expressions that Operon evaluates in the first round, the growth from one round to the next, and the most in one."""

POPULATION, TOURNAMENT, MUTATION, IN_CROSSOVER = 1000, 5, 0.25, 0.9
"""Expressions in a population; those among which the best becomes a parent; the rate of mutation; and the fraction of
crossovers that take whole parts rather than leaves."""

LONGEST, LONGEST_TERM, LONGEST_AT_START, DEEPEST = 30, 10, 10, 10
"""Nodes of an expression, of one that is added to the best so far, of those at the start; levels."""

SMALLEST_WEIGHT = 0.01
"""Least p (1 - p): no working response is further than 100 from its log-odds."""

LARGEST_SIZE = 60


def import_pyoperon():
    """The module pyoperon.

    Raises
    ------
    ImportError
        If it is not installed, or not in a version that this engine speaks to.
    """
    try:
        installed = version("pyoperon")
        module = importlib.import_module("pyoperon")
    except (PackageNotFoundError, ImportError) as error:
        raise ImportError(
            "engine='operon' needs pyoperon 0.4, which cannot be imported here: pip install 'ops_aimmd[operon]' or "
            "'pyoperon>=0.4,<0.5'; engine='score' needs nothing besides ops_aimmd"
        ) from error
    if not installed.startswith(SUPPORTED):
        raise ImportError(
            f"engine='operon' needs pyoperon 0.4; {installed} is installed, which has another interface: "
            "pip install 'pyoperon>=0.4,<0.5'"
        )
    return module


def operon_search(
    shots: Shots,
    n_inputs: int,
    rng: np.random.Generator,
    keep_going: Callable[[int], bool],
    seconds_left: Callable[[], float],
) -> tuple[list[Node], int]:
    """Candidates of all sizes, and how many expressions Operon evaluated, while ``keep_going(n_evaluated)``.

    ``n_inputs`` counts the inputs before any screening; ``seconds_left()`` are processor seconds until the search must end,
    those of Operon's own thread included.
    """
    archive = Archive(shots, n_inputs, LARGEST_SIZE)
    archive.consider(constant(0.0), ROUND_VALUES)
    budget, n_evaluated, rate, whole = FIRST_ROUND, 0, math.inf, True
    while keep_going(n_evaluated):
        start = time.process_time()
        left = max(seconds_left(), 0.05)
        base = archive.best.fitted.node
        q = evaluate(base, shots.columns)
        response, rows = _working_response(q, shots, rng)
        longest = LONGEST if whole else LONGEST_TERM
        target = (response if whole else response - q)[rows]
        trees, evaluated = _run(shots.columns[:, rows], target, rng, longest, min(budget, rate * left), left)
        for tree in trees:
            archive.consider(tree if whole else base + tree, ROUND_VALUES)
        n_evaluated += evaluated
        rate = evaluated / max(time.process_time() - start, 1e-3)
        if not whole:
            budget = min(GROWTH * budget, LONGEST_ROUND)
        whole = not whole
    return archive.candidates(), n_evaluated


def _working_response(q: np.ndarray, shots: Shots, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Target, shape (n,), and the rows it belongs to: each as often as its weight says, up to one that is drawn."""
    p = expit(q)
    slope = np.maximum(p * (1 - p), SMALLEST_WEIGHT)
    expected = np.cumsum(shots.legs * slope)
    rows = np.searchsorted(expected, (np.arange(len(q)) + rng.random()) * expected[-1] / len(q))
    response = q + (shots.reached / shots.legs - p) / slope
    return response, rows


def _run(
    columns: np.ndarray, target: np.ndarray, rng: np.random.Generator, longest: int, evaluations: float, seconds: float
) -> tuple[list[Node], int]:
    """The front of one run of Operon, and how many expressions it evaluated.

    Most of Operon's objects refer to those that they are made of without keeping them: all need names to the end.
    """
    operon = import_pyoperon()
    kinds = _kinds(operon)
    scales = np.sqrt(np.mean(columns**2, axis=1))  # zero stays zero: logarithms and ratios want positive inputs
    scales[scales == 0] = 1.0
    data = np.asfortranarray(np.vstack([columns / scales[:, None], target]).T)
    dataset = operon.Dataset(data)
    variables = sorted(dataset.Variables, key=lambda variable: variable.Index)
    everything = operon.Range(0, dataset.Rows)
    problem = operon.Problem(dataset, everything, operon.Range(dataset.Rows - 1, dataset.Rows))
    problem.Target = variables[-1]
    problem.InputHashes = [variable.Hash for variable in variables[:-1]]
    problem.ConfigurePrimitiveSet(functools.reduce(operator.or_, kinds))

    primitives = problem.PrimitiveSet  # a copy
    creator = operon.BalancedTreeCreator(primitives, problem.InputHashes, 0.0)
    start_values = operon.NormalCoefficientInitializer()
    start_values.ParameterizeDistribution(0, 1)
    trees = operon.UniformLengthTreeInitializer(creator)
    trees.ParameterizeDistribution(2, LONGEST_AT_START)
    table, error = operon.DispatchTable(), operon.R2()
    objectives = [operon.Evaluator(problem, table, error, True), operon.LengthEvaluator(problem)]
    evaluator = operon.MultiEvaluator(problem)
    for objective in objectives:
        evaluator.Add(objective)
    for one in (evaluator, *objectives):
        one.Budget = int(evaluations)

    comparison = operon.CrowdedComparison()
    selector = operon.TournamentSelector(comparison)
    selector.TournamentSize = TOURNAMENT
    crossover = operon.SubtreeCrossover(IN_CROSSOVER, DEEPEST, longest)
    of_constants = operon.NormalOnePointMutation()
    of_constants.ParameterizeDistribution(0, 1)
    mutations = [
        of_constants,
        operon.ChangeVariableMutation(problem.InputHashes),
        operon.ChangeFunctionMutation(primitives),
        operon.ReplaceSubtreeMutation(creator, start_values, DEEPEST, longest),
        operon.InsertSubtreeMutation(creator, start_values, DEEPEST, longest),
        operon.RemoveSubtreeMutation(primitives),
    ]
    mutation = operon.MultiMutation()
    for one in mutations:
        mutation.Add(one, 1.0)
    no_fit = operon.LMOptimizer(table, problem, 0)  # constants are fitted after the run, under the likelihood
    coefficients = operon.CoefficientOptimizer(no_fit, 0.0)
    generator = operon.BasicOffspringGenerator(evaluator, crossover, mutation, selector, selector, coefficients)
    reinserter, sorter = operon.KeepBestReinserter(comparison), operon.RankSorter()
    settings = operon.GeneticAlgorithmConfig(
        generations=int(evaluations),  # never reached
        max_evaluations=int(evaluations),
        local_iterations=0,
        population_size=POPULATION,
        pool_size=POPULATION,
        p_crossover=1.0,
        p_mutation=MUTATION,
        seed=int(rng.integers(2**32)),
        time_limit=math.ceil(seconds),
    )
    algorithm = operon.NSGA2Algorithm(problem, settings, trees, start_values, generator, reinserter, sorter)
    random = operon.RomuTrio(settings.Seed)
    algorithm.Run(random, None, 1)

    inputs = {variable.Hash: x(k) for k, variable in enumerate(variables[:-1])}
    proposals = []
    for individual in sorted(algorithm.BestFront, key=lambda one: one.Genotype.Length):
        tree = from_operon(individual.Genotype.Nodes, kinds, inputs, scales)
        values = operon.Evaluate(table, individual.Genotype, dataset, everything).astype(np.float64)
        proposals.append(_scaled(tree, values, target))
    return [tree for tree in proposals if tree is not None], int(objectives[0].CallCount)


def _kinds(operon) -> dict:
    """Operon's kinds of nodes and ours."""
    names = ("Add", "Sub", "Mul", "Div", "Exp", "Log", "Sqrt", "Square", "Constant", "Variable")
    return {getattr(operon.NodeType, name): name.lower() for name in names}


def from_operon(nodes, kinds: dict, inputs: dict, scales: np.ndarray) -> Node:
    """Our tree of Operon's nodes, which come in postfix order with the arguments of each from the last to the first.

    ``kinds`` names each kind, ``inputs`` holds the input of each variable's hash; inputs were divided by ``scales`` (d,).
    """
    stack: list[Node] = []
    for node in nodes:
        kind = kinds[node.Type]
        if kind == "constant":
            stack.append(constant(node.Value))
        elif kind == "variable":
            variable = inputs[node.HashValue]
            stack.append(constant(node.Value / scales[int(variable.value)]) * variable)
        else:
            arguments = [stack.pop() for _ in range(node.Arity)]
            stack.append(Node(kind, tuple(arguments)))
    return stack.pop()


def _scaled(tree: Node, values: np.ndarray, target: np.ndarray) -> Node | None:
    """The tree times a constant plus a constant, which Operon fits without keeping them; None if it is undefined."""
    spread = np.var(values)
    if not np.isfinite(spread) or spread == 0:
        return None
    slope = np.mean((values - values.mean()) * target) / spread
    return constant(slope) * tree + constant(target.mean() - slope * values.mean())
