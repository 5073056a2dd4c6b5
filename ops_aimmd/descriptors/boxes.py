"""Periodic boxes: the minimum image of vectors, and the checks on positions and boxes that every descriptor makes."""

from __future__ import annotations

import itertools

import numpy as np
import torch


def as_frames(positions, box, atoms):
    """Positions and box of a batch of frames, checked.

    Parameters
    ----------
    positions : tensor, shape (n_frames, n_atoms, 3)
        Any unit of length.
    box : tensor, shape (n_frames, 3, 3) or (3, 3), or None
        Rows are the box vectors, in the same unit.
    atoms : long tensor, shape (n,)
        The atoms that will be used; only these are looked at.

    Returns
    -------
    box : tensor, shape (n_frames, 3, 3), or None

    Raises
    ------
    ValueError
        For wrong shapes, atoms out of range, or positions and boxes that are not finite or have no volume. The message
        names atoms and frames.
    """
    if positions.ndim != 3 or positions.shape[-1] != 3:
        raise ValueError(
            f"positions have shape {tuple(positions.shape)}, expected (n_frames, n_atoms, 3); for a single frame pass "
            "positions[None]"
        )
    n_frames, n_atoms, _ = positions.shape
    outside = atoms[atoms >= n_atoms]
    if len(outside):
        raise ValueError(
            f"the descriptors use the atoms {outside[:10].tolist()}, but the positions have only {n_atoms} atoms (0 to "
            f"{n_atoms - 1}): descriptors and frames belong to different systems"
        )
    bad = ~torch.isfinite(positions[:, atoms]).all(dim=-1)
    if bad.any():
        frames, columns = torch.nonzero(bad, as_tuple=True)
        raise ValueError(
            f"positions are not finite in frames {_first(frames)}: atoms {_first(atoms[columns])}; the dynamics that made "
            "them has failed, or the file is damaged"
        )
    if box is None:
        return None
    if tuple(box.shape) == (3, 3):
        box = box.expand(n_frames, 3, 3)
    if tuple(box.shape) != (n_frames, 3, 3):
        raise ValueError(
            f"the box has shape {tuple(box.shape)}, expected ({n_frames}, 3, 3): one matrix per frame, rows are the box "
            "vectors"
        )
    if n_frames:
        volumes = torch.linalg.det(box)
        bad = ~(torch.isfinite(volumes) & (volumes > 0))
        if bad.any():
            frames = torch.nonzero(bad).flatten()
            raise ValueError(
                f"the box vectors of frames {_first(frames)} are not finite or enclose no volume: {box[frames[0]].tolist()}"
            )
    return box


def _first(indices, n=10):
    unique = torch.unique(indices).tolist()
    return f"{unique[:n]}" + (f" (first {n} of {len(unique)})" if len(unique) > n else "")


def missing_box(what: str) -> ValueError:
    """The error of descriptors that need a box and get none."""
    return ValueError(
        f"{what} were made for a periodic box, but the frames have none: pass box=(n_frames, 3, 3), or make the "
        "descriptors with periodic=False"
    )


def box_widths(box):
    r"""Distances between opposite faces of boxes, :math:`V / |b \times c|` and so on.

    Parameters
    ----------
    box : tensor, shape (n_frames, 3, 3)

    Returns
    -------
    tensor, shape (n_frames, 3)
    """
    normals = torch.linalg.cross(box.roll(-1, dims=-2), box.roll(-2, dims=-2))
    return torch.linalg.det(box).abs()[:, None] / torch.linalg.norm(normals, dim=-1)


def nearest_cell(vectors, box):
    r"""Vectors moved by whole box vectors until all fractional coordinates lie in [-1/2, 1/2].

    The result is the shortest image if that is shorter than half the smallest width of the box:
    the fractional coordinate along box vector i is the projection on the normal of the faces over the width
    :math:`w_i`, so that :math:`|d| < w_i / 2` for all i implies that all fractional coordinates of d are below 1/2. In an
    orthorhombic box it is the shortest image always.

    Parameters
    ----------
    vectors : tensor, shape (n_frames, n, 3)
    box : tensor, shape (n_frames, 3, 3)

    Returns
    -------
    tensor, shape (n_frames, n, 3)
    """
    if is_orthorhombic(box):
        lengths = torch.diagonal(box, dim1=-2, dim2=-1)[:, None, :]
        return vectors - torch.round(vectors.detach() / lengths) * lengths
    cells = torch.round(vectors.detach() @ torch.linalg.inv(box))
    return vectors - cells @ box


def minimum_image(vectors, box):
    """The shortest periodic images of vectors, also of those longer than half a width of a triclinic box.

    The box must be in reduced form (the longest vectors are no shorter than their combinations), as OpenMM and GROMACS
    demand: then the shortest image is among the 27 around `nearest_cell`.

    Parameters
    ----------
    vectors : tensor, shape (n_frames, n, 3)
    box : tensor, shape (n_frames, 3, 3)

    Returns
    -------
    tensor, shape (n_frames, n, 3)
    """
    vectors = nearest_cell(vectors, box)
    if is_orthorhombic(box) or not vectors.numel():
        return vectors
    cells = torch.tensor(list(itertools.product((0, -1, 1), repeat=3)), dtype=box.dtype, device=box.device)
    shifts = cells @ box  # (n_frames, 27, 3)
    squares = (vectors.detach()[:, :, None, :] + shifts[:, None, :, :]).square().sum(dim=-1)
    best = squares.argmin(dim=-1)
    return vectors + torch.gather(shifts, 1, best[:, :, None].expand(-1, -1, 3))


def is_orthorhombic(box) -> bool:
    """Whether all box vectors of all frames lie along the axes."""
    return not (box - torch.diag_embed(torch.diagonal(box, dim1=-2, dim2=-1))).any()


def shortest_vector_of_frame(vector, box):
    """`minimum_image` of one vector (3,) in a box (3, 3) or None, as lists in plain Python.

    That is ten times faster than arrays for the single frame of a running leg.
    """
    if box is None:
        return vector
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = box
    if ay == az == bx == bz == cx == cy == 0.0:
        x, y, z = vector
        return [x - round(x / ax) * ax, y - round(y / by) * by, z - round(z / cz) * cz]
    tensors = (torch.tensor(np.asarray(part), dtype=torch.float64)[None] for part in ([vector], box))
    return minimum_image(*tensors)[0, 0].tolist()
