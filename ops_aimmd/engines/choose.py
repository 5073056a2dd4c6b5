"""Which adapter serves which engine."""

from __future__ import annotations

import openpathsampling as paths
from openpathsampling.integration_tools import HAS_OPENMM

from ops_aimmd.engines.base import EngineAdapter
from ops_aimmd.engines.toy_adapter import ToyAdapter

ADAPTERS: dict[type, type[EngineAdapter]] = {paths.engines.toy.Engine: ToyAdapter}
"""Adapter of each class of engines; subclasses of an engine share its adapter, unless they have one of their own."""

if HAS_OPENMM:
    from ops_aimmd.engines.openmm_adapter import OpenMMAdapter

    ADAPTERS[paths.engines.openmm.Engine] = OpenMMAdapter

THREAD_VARIABLES = ("OPENMM_CPU_THREADS",)
"""Environment variables that limit the number of threads of engines."""


def adapter_of(engine) -> EngineAdapter:
    """The adapter of an engine; `EngineAdapter` itself for engines of an unknown kind."""
    known = (ADAPTERS[kind] for kind in type(engine).__mro__ if kind in ADAPTERS)
    return next(known, EngineAdapter)(engine)
