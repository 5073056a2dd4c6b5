"""Kinds of engines."""

from __future__ import annotations

import openpathsampling as paths
from openpathsampling.integration_tools import HAS_OPENMM


def is_openmm(engine) -> bool:
    """Whether an engine runs on OpenMM; also where OpenMM is not installed."""
    return HAS_OPENMM and isinstance(engine, paths.engines.openmm.Engine)
