r"""Which atoms move the reaction coordinate? Its gradient with respect to Cartesian coordinates, through the descriptors.

The chain rule :math:`\partial q / \partial r_a = \sum_j (\partial q / \partial x_j)\, \partial x_j / \partial r_a`
goes through the network and the descriptors in torch. The relevance of atom a in a frame is the length of this
vector: how much the log-odds changes per nm that the atom alone is moved. It is a sensitivity, not a fluctuation:
stiff coordinates count as much as soft ones.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ops_aimmd.committor.model import CommittorModel
from ops_aimmd.descriptors import Descriptors
from ops_aimmd.descriptors.topology import as_mdtraj
from ops_aimmd.explain.inputs.gradients import double_copy, reaction_coordinate_of, reaction_coordinates_of

LARGEST_B_FACTOR = 99.0
"""A PDB file has two digits after the point and two before it."""


def cartesian_gradient(
    model: CommittorModel, descriptors: Descriptors, positions, boxes=None, state=None, frames_at_once: int = 50
) -> np.ndarray:
    """Gradient of the reaction coordinate with respect to the positions of all atoms, in double precision.

    Parameters
    ----------
    descriptors : Descriptors
        What the model was trained on, one of :mod:`ops_aimmd.descriptors`.
    positions : array, shape (n_frames, n_atoms, 3)
        In the unit of the descriptors (nm).
    boxes : array, shape (n_frames, 3, 3) or (3, 3), optional
        Needed for periodic descriptors.
    state : int, optional
        Gradient of ``ln p`` of this state; needed for more than two states. Default: the log-odds of the last of two.
    frames_at_once : int
        Bounds the memory.

    Returns
    -------
    array, shape (n_frames, n_atoms, 3)
        Per nm. Zero for atoms that no descriptor depends on.

    Raises
    ------
    ValueError
        If the descriptors are not those of the model, frames do not fit them, or a derivative is not finite.
    """
    coordinate = partial(reaction_coordinate_of, state=state)
    gradients = _gradients(model, descriptors, positions, boxes, frames_at_once, coordinate)
    return np.concatenate([gradient[0] for gradient in gradients])


def atom_relevance(
    model: CommittorModel, descriptors: Descriptors, positions, boxes=None, frames_at_once: int = 50
) -> np.ndarray:
    """Length of the gradient of the reaction coordinate with respect to the position of each atom, frame by frame.

    For more than two states the squares are summed over the logits less their mean. Parameters and errors as in
    `cartesian_gradient`. Returns an array of shape (n_frames, n_atoms), per nm.
    """
    gradients = _gradients(model, descriptors, positions, boxes, frames_at_once, reaction_coordinates_of)
    return np.concatenate([np.sqrt((gradient**2).sum(axis=(0, -1))) for gradient in gradients])


def mean_over_frames(relevance, weights=None) -> np.ndarray:
    """Weighted mean over the frames of a path, or of the transition-state ensemble.

    Parameters
    ----------
    relevance : array, shape (n_frames, n_atoms)
    weights : array, shape (n_frames,), optional
        Non-negative, for instance from :func:`transition_state_weights`.

    Returns an array of shape (n_atoms,). Raises ValueError for other shapes, or weights that are negative or all zero.
    """
    relevance = np.asarray(relevance, dtype=np.float64)
    if relevance.ndim != 2 or len(relevance) == 0:
        raise ValueError(f"the relevance of atoms has shape {relevance.shape}, expected (n_frames, n_atoms) with a frame")
    weights = np.ones(len(relevance)) if weights is None else np.asarray(weights, dtype=np.float64)
    if weights.shape != (len(relevance),) or not (weights >= 0).all() or not weights.sum() > 0:
        raise ValueError(
            f"weights must be non-negative, not all zero, one for each of the {len(relevance)} frames; got shape "
            f"{weights.shape}"
        )
    return np.average(relevance, axis=0, weights=weights)


def transition_state_weights(committor, width: float = 0.1) -> np.ndarray:
    """Weights of frames by how close their committor is to 1/2: a Gaussian in the committor.

    Parameters
    ----------
    committor : array, shape (n_frames,)
        Committor to one of two states.
    width : float
        Standard deviation of the Gaussian.

    Returns
    -------
    array, shape (n_frames,)
        They sum up to 1.

    Raises
    ------
    ValueError
        For committors outside of [0, 1], or if no frame is closer to 1/2 than two widths.
    """
    committor = np.asarray(committor, dtype=np.float64)
    if committor.ndim != 1 or not ((committor >= 0) & (committor <= 1)).all():
        raise ValueError(f"committors must lie in [0, 1] and have shape (n_frames,); got shape {committor.shape}")
    if not width > 0:
        raise ValueError(f"width must be positive; got {width}")
    distance = np.abs(committor - 0.5)
    if not (distance < 2 * width).any():
        closest = f"the closest has {committor[distance.argmin()]:.3f}" if len(committor) else "there are no frames"
        raise ValueError(
            f"no frame has a committor within {2 * width:g} of 1/2, {closest}: give other frames or a larger width"
        )
    weights = np.exp(-0.5 * (distance / width) ** 2)
    return weights / weights.sum()


def write_relevance_pdb(file: str | os.PathLike, topology, positions, relevance) -> float:
    """Write frames as PDB with the relevance of the atoms as B-factors, for colouring in a viewer.

    The most relevant atom (of all frames) gets 99; the first line of the file states the scale.

    Parameters
    ----------
    file : path
        Replaced if it exists.
    topology : mdtraj.Topology or openmm.app.Topology
    positions : array, shape (n_frames, n_atoms, 3) or (n_atoms, 3)
        In nm.
    relevance : array, shape (n_frames, n_atoms) or (n_atoms,)

    Returns
    -------
    float
        Relevance (per nm) of a B-factor of 99.

    Raises
    ------
    ValueError
        If shapes do not fit, or the relevance is not finite, negative or zero everywhere.
    """
    import mdtraj

    topology = as_mdtraj(topology)
    positions = np.asarray(positions, dtype=np.float64)
    positions = positions[None] if positions.ndim == 2 else positions
    relevance = np.asarray(relevance, dtype=np.float64)
    n_atoms = topology.n_atoms
    if positions.shape[1:] != (n_atoms, 3) or relevance.shape not in ((n_atoms,), (len(positions), n_atoms)):
        raise ValueError(
            f"the topology has {n_atoms} atoms: expected positions (n_frames, {n_atoms}, 3) and relevance ({n_atoms},) or "
            f"(n_frames, {n_atoms}); got {positions.shape} and {relevance.shape}"
        )
    largest = relevance.max(initial=0.0)
    if not np.isfinite(relevance).all() or (relevance < 0).any() or not largest > 0:
        raise ValueError("the relevance of atoms must be finite, non-negative and not zero everywhere")
    scaled = np.broadcast_to(relevance * (LARGEST_B_FACTOR / largest), positions.shape[:2])
    topology = mdtraj.Topology.from_dataframe(*topology.to_dataframe())  # MDTraj's own copy shares atoms with the old one
    for atom in topology.atoms:
        atom.formal_charge = None  # made of tables, as OPS stores it, it is a missing value that MDTraj cannot write
    mdtraj.Trajectory(positions, topology).save_pdb(str(file), bfactors=scaled)
    remark = f"REMARK   2 B-FACTORS: RELEVANCE OF ATOMS, {LARGEST_B_FACTOR:.2f} IS {largest:.6g} PER NM\n"
    Path(file).write_text(remark + Path(file).read_text())
    return float(largest)


def _gradients(model, descriptors, positions, boxes, frames_at_once, coordinates):
    """Gradients (n_outputs, frames, n_atoms, 3) of the outputs of `coordinates`, for some frames after another."""
    if not isinstance(descriptors, Descriptors) or len(descriptors.names) != model.n_descriptors:
        raise ValueError(
            f"atoms need the {model.n_descriptors} descriptors of the model as one of ops_aimmd.descriptors (of a "
            f"DescriptorCV its .descriptors); got a {type(descriptors).__name__}"
            + (f" of {len(descriptors.names)} columns" if isinstance(descriptors, Descriptors) else "")
        )
    positions = np.asarray(positions, dtype=np.float64)
    if positions.ndim != 3 or positions.shape[-1] != 3 or len(positions) == 0:
        raise ValueError(f"positions have shape {positions.shape}, expected (n_frames, n_atoms, 3) with at least a frame")
    if boxes is not None:
        boxes = np.broadcast_to(np.asarray(boxes, dtype=np.float64), (len(positions), 3, 3))
    copy = double_copy(model)
    for start in range(0, len(positions), frames_at_once):
        frames = slice(start, start + frames_at_once)
        x = torch.tensor(positions[frames], requires_grad=True)
        outputs = coordinates(copy, descriptors(x, None if boxes is None else torch.tensor(boxes[frames])))
        gradients = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0].numpy() for column in outputs.T]
        gradients = np.stack(gradients)
        bad = np.flatnonzero(~np.isfinite(gradients).all(axis=(0, 2, 3)))
        if len(bad):
            raise ValueError(
                f"the derivatives are not finite in frames {(start + bad[:10]).tolist()}: a descriptor or the "
                "network has none there; leave these frames out"
            )
        yield gradients
