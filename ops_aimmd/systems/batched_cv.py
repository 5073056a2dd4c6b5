"""Collective variables that evaluate all frames of a trajectory at once."""

import openpathsampling as paths
from openpathsampling.netcdfplus import chaindict


class BatchedCV(paths.CollectiveVariable):
    """Collective variable of positions, evaluated for all frames at once (abstract: subclasses define `_values`).

    As in every OPS collective variable the values are remembered per snapshot. Only positions enter, so a snapshot and
    its reversed copy share them. OPS takes two collective variables of the same class and name for the same one: names
    must differ.
    """

    def __init__(self, name):
        super().__init__(name, cv_time_reversible=True)
        self._eval_dict = chaindict.Function(self._values, requires_lists=True)
        self._post = chaindict.MergeNumpy() > (self._post > self._eval_dict)

    def _values(self, snapshots):
        """Values of a list of snapshots: array, one row per snapshot."""
        raise NotImplementedError
