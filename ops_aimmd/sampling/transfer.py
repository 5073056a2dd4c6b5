"""A learner of another system starts a new one: the same reaction of another ion, temperature or force field."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping

from ops_aimmd.committor.transferred_start import ColumnMap, TransferredStart, match_columns
from ops_aimmd.sampling.learner import CommittorLearner
from ops_aimmd.sampling.learner_checkpoint import load_learner


def transfer(
    source: CommittorLearner | str | os.PathLike,
    learner: CommittorLearner,
    rename: Mapping[str, str] | None = None,
    trajectory=None,
) -> ColumnMap:
    """Begin a run with what was learned on another system.

    ::

        learner = ops_aimmd.CommittorLearner(nacl.descriptors, states=nacl.states, seed=1)
        ops_aimmd.transfer("licl.aimmd", learner, rename={"Li": "Na"}, trajectory=initial_trajectory)

    The learner starts with the model of the source, its log-odds flattened, for it knows the new system less well than its
    own. The shots of the new system calibrate it, train it further, and from twenty shots on decide whether it is left for
    a model with new weights; ``learner.last_report`` tells (`ops_aimmd.committor.transferred_start`). That goes on in a
    resumed run. The shots of the source are not learned from.

    Parameters
    ----------
    source : CommittorLearner, str or path
        A learner, or the checkpoint of its run. Where its descriptors have no names (older files), give
        ``load_learner(checkpoint, descriptors=...)``.
    learner : CommittorLearner
        A new one of the new system, with as many states, which correspond in their order. It is changed.
    rename : mapping of str to str, optional
        Words in the names of the descriptors of the source, and what stands for them in those of the learner.
    trajectory : openpathsampling.Trajectory, optional
        A first path of the new system. The inputs are then scaled for it before the first shot; otherwise those of the
        source hold, until there are shots.

    Returns
    -------
    ColumnMap
        What became of the columns. Without names on one side the columns correspond in their order.

    Raises
    ------
    ValueError
        If the states do not fit or come in another order, no descriptor matches, there are no names and the numbers of
        descriptors differ (known with a trajectory; otherwise when the run begins), the source has learned nothing, or its
        network is not one of this package.
    RuntimeError
        If the learner has learned already, or its run has begun.

    Warns
    -----
    UserWarning
        If some descriptors are only in the source, or only in the learner.
    """
    if not isinstance(source, CommittorLearner):
        source = load_learner(source)
    if not source.has_seen_paths or source.last_report is None:
        raise ValueError("the source has not been trained, so there is nothing to transfer")
    if source.n_states != learner.n_states:
        raise ValueError(
            f"the source knows {source.n_states} states, the learner {learner.n_states}: they must correspond one by one, "
            "in their order"
        )
    known, own = [state.name for state in source.states], [state.name for state in learner.states]
    if known != own and sorted(known) == sorted(own):
        raise ValueError(f"the source has the states {known}, the learner {own}: give them in the order of the source")
    descriptors = None if trajectory is None else learner.evaluate_descriptors(trajectory)
    columns = _columns(source, learner, rename)
    start = TransferredStart.of(source.model, source.training_set, columns.columns)
    learner.start_from(start if descriptors is None else start.adapted(descriptors))
    if columns.new or columns.dropped:
        warnings.warn(f"transfer: {columns}", stacklevel=2)
    return columns


def _columns(source: CommittorLearner, learner: CommittorLearner, rename) -> ColumnMap:
    known, names = source.descriptor_names, learner.descriptor_names
    if known is not None and names is not None:
        return match_columns(known, names, rename)
    if rename:
        raise ValueError(
            f"rename needs names on both sides, and the descriptors of the {'source' if known is None else 'learner'} have "
            "none: use ops_aimmd.sampling.DescriptorCV, or load_learner(checkpoint, descriptors=...) as the source"
        )
    n_source = source.model.n_descriptors
    n_target = learner.model.n_descriptors if learner.has_seen_paths else n_source if names is None else len(names)
    if n_source != n_target:
        raise ValueError(
            f"the source has {n_source} descriptors, the learner {n_target}, and without names on both sides they can only "
            "correspond one by one, in their order: use ops_aimmd.sampling.DescriptorCV, which names them"
        )
    return ColumnMap(tuple(range(n_source)))
