r"""Toy systems ready for OPS: engine, states, descriptors, a first transition path, the exact committor.

::

    system = toy.two_gaussian_wells(n_bath=20, dynamics="langevin")
    network = system.network()
    trajectory = system.initial_trajectory(seed=1)
    p_B = system.committor(system.evaluation_points())

All masses are 1. Temperatures are kT in the units of the potential.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import openpathsampling as paths
from openpathsampling.engines import toy as ops_toy
from openpathsampling.netcdfplus import chaindict

from ops_aimmd.systems.exact_committor import Disk, ExactCommittor
from ops_aimmd.systems.potentials import (
    HummerSzabo,
    MuellerBrown,
    Potential,
    PotentialSurface,
    TwoGaussianWells,
    WithBath,
    WolfeQuapp,
)
from ops_aimmd.systems.swarm import Swarm, boltzmann_velocities
from ops_aimmd.systems.two_states import TwoStates


class ToyCoordinates(paths.CollectiveVariable):
    """All coordinates of a toy system: (n_frames, n_dim) of a trajectory, (n_dim,) of a snapshot.

    Not cached: reading a coordinate costs less than looking it up.
    """

    def __init__(self, name):
        super().__init__(name, cv_time_reversible=True)
        self._eval_dict = chaindict.Function(self._frames, requires_lists=True)
        self._post = self._post > self._eval_dict

    def __call__(self, items):
        if isinstance(items, paths.BaseSnapshot):
            return np.array(items.coordinates[0], dtype=float)
        return self._frames(items)

    @staticmethod
    def _frames(items):
        return np.array([snapshot.coordinates[0] for snapshot in items], dtype=float)


class ToyDistance(paths.CollectiveVariable):
    """Distance of the first two coordinates from a point: (n_frames,) of a trajectory, a float of a snapshot.

    Not cached: the distance costs less than looking it up.

    Parameters
    ----------
    name : str
    center : list of two floats
    """

    def __init__(self, name, center):
        super().__init__(name, cv_time_reversible=True)
        self.center = center
        self._eval_dict = chaindict.Function(self._frames, requires_lists=True)
        self._post = self._post > self._eval_dict

    def __call__(self, items):
        if isinstance(items, paths.BaseSnapshot):
            return self._frame(items)
        return np.array(self._frames(items), dtype=float)

    def _frame(self, snapshot):
        x = snapshot.coordinates[0]
        dx, dy = x.item(0) - self.center[0], x.item(1) - self.center[1]
        return math.sqrt(dx * dx + dy * dy)

    def _frames(self, items):
        return [self._frame(snapshot) for snapshot in items]

    def to_dict(self):
        return {**super().to_dict(), "center": list(self.center)}


@dataclasses.dataclass(frozen=True, eq=False)
class ToySystem(TwoStates):
    """A model system with everything that path sampling needs, and the answer.

    Parameters
    ----------
    states : list of two OPS volumes
        A and B: disks, defined through storable collective variables.
    descriptors : openpathsampling.CollectiveVariable
        all coordinates, (n_frames, n_dim).
    temperature : float
        kT.
    potential : Potential
        of all coordinates.
    disks : tuple of two Disk
        the states once more, for arrays.
    saddles : tuple of points
        one point of the plane per reaction channel, near the separatrix: where initial paths are shot from.
    v_max : float
        default upper limit of the two-dimensional potential for :meth:`evaluation_points`.
    exact : ExactCommittor
        of the continuous overdamped dynamics; solved when first asked.
    """

    name: str
    engine: ops_toy.Engine
    states: list
    descriptors: paths.CollectiveVariable
    temperature: float
    potential: Potential
    disks: tuple
    saddles: tuple
    v_max: float
    exact: ExactCommittor

    @property
    def n_dim(self):
        """Number of coordinates, bath included."""
        return self.potential.n_dim

    def committor(self, x):
        """Exact committor of B, of continuous overdamped dynamics.

        It depends on the first two coordinates only. See :class:`ExactCommittor` for the errors raised.

        Parameters
        ----------
        x : array, shape (n, n_dim)

        Returns
        -------
        array, shape (n,)
        """
        return self.exact(x)

    def evaluation_points(self, spacing=None, v_max=None, rng=None):
        """Points on which to compare committors: a grid where V is low, outside of the states.

        Parameters
        ----------
        spacing : float, optional
            of the grid; default such that about 400 points remain.
        v_max : float, optional
            upper limit of the two-dimensional potential at the points; default ``self.v_max``.
        rng : numpy.random.Generator, optional
            draws the bath coordinates from their Boltzmann distribution; without it they are 0.

        Returns
        -------
        array, shape (n, n_dim)
        """
        v_max = self.v_max if v_max is None else v_max
        if spacing is None:
            fine = self._grid(self.exact.spacing, v_max)
            spacing = self.exact.spacing * math.sqrt(len(fine) / 400)
        return self._with_bath(self._grid(spacing, v_max), rng)

    def _grid(self, spacing, v_max):
        axes = [np.arange(low + 0.5 * spacing, high, spacing) for low, high in self.exact.box]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
        keep = self.exact.potential.value(points) < v_max
        for disk in self.disks:
            keep &= ~disk.contains(points)
        return points[keep]

    def _with_bath(self, points, rng):
        x = np.zeros((len(points), self.n_dim))
        x[:, :2] = points
        if isinstance(self.potential, WithBath) and rng is not None:
            sigma = np.sqrt(self.temperature / np.array(self.potential.stiffness))
            x[:, 2:] = sigma * rng.standard_normal((len(points), len(sigma)))
        return x

    def initial_trajectory(self, seed, channel=0, n_attempts=50) -> paths.Trajectory:
        """A transition path from A to B, by two-way shots from a saddle.

        All frames but the two ends lie outside the states, and the length is within the engine's
        ``n_frames_max``. The path is a piece of the engine's dynamics, though not drawn from the ensemble of
        transition paths: let the sampling forget it.

        Parameters
        ----------
        seed : int or numpy.random.Generator
            fixes the path; no global generator is touched.
        channel : int
            which of ``self.saddles`` to start from. The path need not stay in this channel.
        n_attempts : int
            batches of eight shots before giving up.

        Raises
        ------
        RuntimeError
            where no shot connects the states within the length limit.
        """
        rng = np.random.default_rng(seed)
        n_shots = 8
        for _ in range(n_attempts):
            start = self._with_bath(np.tile(self.saddles[channel], (n_shots, 1)), rng)
            velocities = boltzmann_velocities(n_shots, self.engine.mass, self.temperature, rng)
            path = self._connect(start, velocities, rng)
            if path is not None:
                return paths.Trajectory(
                    [
                        ops_toy.Snapshot(coordinates=x[None, :], velocities=v[None, :], engine=self.engine)
                        for x, v in zip(*path, strict=True)
                    ]
                )
        raise RuntimeError(
            f"{n_attempts * n_shots} two-way shots from {self.saddles[channel]} gave no transition path "
            f"of at most {self.engine.options['n_frames_max']} frames. Raise n_frames_max."
        )

    def _connect(self, start, velocities, rng):
        """Positions and velocities of the first of the two-way shots that connects A and B, else None."""
        n_shots, n_frames_max = len(start), self.engine.options["n_frames_max"]
        swarm = Swarm(
            self.engine,
            self.potential,
            self.engine.mass,
            np.concatenate([start, start]),
            np.concatenate([velocities, -velocities]),
        )
        outcome, last = np.full(2 * n_shots, -1), np.zeros(2 * n_shots, dtype=int)
        frames = [(swarm.positions.copy(), swarm.velocities.copy())]
        while len(frames) < n_frames_max and (outcome < 0).any():
            swarm.advance(rng)
            frames.append((swarm.positions.copy(), swarm.velocities.copy()))
            arrived = False
            for state, disk in enumerate(self.disks):
                reached = (outcome < 0) & disk.contains(swarm.positions)
                outcome[reached], last[reached] = state, len(frames) - 1
                arrived = arrived or reached.any()
            if not arrived:
                continue
            both = np.stack([outcome[:n_shots], outcome[n_shots:]], axis=1)
            lengths = last[:n_shots] + last[n_shots:] + 1
            connected = np.flatnonzero((both.min(axis=1) == 0) & (both.max(axis=1) == 1) & (lengths <= n_frames_max))
            if len(connected):
                i, j = connected[0], connected[0] + n_shots
                forward, backward = (i, j) if outcome[i] == 1 else (j, i)
                old = [(x[backward], -v[backward]) for x, v in frames[last[backward] : 0 : -1]]
                new = [(x[forward], v[forward]) for x, v in frames[: last[forward] + 1]]
                return tuple(np.array(part) for part in zip(*(old + new), strict=True))
        return None


def _integrator(dynamics, temperature, overdamped, langevin):
    if dynamics == "overdamped":
        dt, diffusion, n_steps_per_frame = overdamped
        integrator = ops_toy.OverdampedLangevinIntegrator(dt=dt, temperature=temperature, D=diffusion)
        # OPS makes this a numpy scalar, which its netCDF storage writes as null: the engine would come back
        # unable to move
        integrator.R = float(integrator.R)
        return integrator, n_steps_per_frame
    if dynamics == "langevin":
        dt, gamma, n_steps_per_frame = langevin
        return ops_toy.LangevinBAOABIntegrator(dt=dt, temperature=temperature, gamma=gamma), n_steps_per_frame
    raise ValueError(f"Got dynamics {dynamics!r}, expected 'overdamped' or 'langevin'.")


def _toy_system(name, core, chosen, *, disks, saddles, box, spacing, v_max, bath_stiffness, overdamped, langevin):
    """Put the parts together.

    ``chosen`` are temperature, dynamics, n_bath, n_frames_max and n_steps_per_frame; ``overdamped`` is (dt, D, steps per
    frame), ``langevin`` (dt, gamma, steps per frame).
    """
    temperature, dynamics, n_bath, n_frames_max, n_steps_per_frame = chosen
    temperature = float(temperature)
    potential = core
    if n_bath:
        potential = WithBath(core, tuple(np.geomspace(*bath_stiffness, n_bath).tolist()))
    integrator, default_n_steps = _integrator(dynamics, temperature, overdamped, langevin)
    engine = ops_toy.Engine(
        options={
            "integ": integrator,
            "n_frames_max": n_frames_max,
            "n_steps_per_frame": default_n_steps if n_steps_per_frame is None else n_steps_per_frame,
        },
        topology=ops_toy.Topology(
            n_spatial=potential.n_dim,
            masses=[1.0] * potential.n_dim,
            pes=PotentialSurface(potential),
        ),
    ).named(name)
    # OPS compares volumes by their names: those of different systems must differ
    states = [
        paths.CVDefinedVolume(
            ToyDistance(f"{name}: distance to {label} {disk.center}", list(disk.center)), 0.0, disk.radius
        ).named(label)
        for label, disk in zip("AB", disks, strict=True)
    ]
    return ToySystem(
        name=name,
        engine=engine,
        states=states,
        descriptors=ToyCoordinates(f"{name}: coordinates"),
        temperature=temperature,
        potential=potential,
        disks=disks,
        saddles=saddles,
        v_max=v_max,
        exact=ExactCommittor(core, box, disks, temperature, spacing),
    )


def mueller_brown(
    temperature=10.0, dynamics="overdamped", n_bath=0, n_frames_max=5000, n_steps_per_frame=None
) -> ToySystem:
    """The Müller-Brown potential: two barriers in a row, the upper one decides.

    Parameters
    ----------
    temperature : float
        kT; default 10. The upper barrier is 106 high, seen from A.
    dynamics : {"overdamped", "langevin"}
        overdamped: D = 1, dt = 5e-5, a frame every 20 steps; Langevin: BAOAB with dt = 0.002 (a fiftieth of
        the shortest period), friction 30, a frame every 2 steps.
    n_bath : int
        number of irrelevant oscillators.
    n_frames_max : int
        length limit of the engine.
    n_steps_per_frame : int, optional
        instead of the frame spacing given above.
    """
    return _toy_system(
        "mueller_brown",
        MuellerBrown(),
        (temperature, dynamics, n_bath, n_frames_max, n_steps_per_frame),
        disks=(Disk((-0.558, 1.442), 0.1), Disk((0.623, 0.028), 0.1)),
        saddles=((-0.822, 0.624),),
        box=((-2.4, 1.8), (-1.4, 2.8)),
        spacing=0.012,
        v_max=-10.0,
        bath_stiffness=(100.0, 3000.0),
        overdamped=(5e-5, 1.0, 20),
        langevin=(0.002, 30.0, 2),
    )


def wolfe_quapp(temperature=1.0, dynamics="overdamped", n_bath=0, n_frames_max=5000, n_steps_per_frame=None) -> ToySystem:
    """The rotated Wolfe-Quapp potential: two channels.

    ``saddles[0]`` lies in the channel x < 0, which carries about three quarters of the paths, ``saddles[1]``
    in the channel x > 0.

    Parameters
    ----------
    temperature : float
        kT; default 1. The barrier is 11 high, seen from A.
    dynamics : {"overdamped", "langevin"}
        overdamped: D = 1, dt = 5e-4, a frame every 10 steps; Langevin: BAOAB with dt = 0.02 (a fiftieth of
        the shortest period), friction 5, a frame every 2 steps.
    n_bath, n_frames_max, n_steps_per_frame
        As for :func:`mueller_brown`.
    """
    return _toy_system(
        "wolfe_quapp",
        WolfeQuapp(),
        (temperature, dynamics, n_bath, n_frames_max, n_steps_per_frame),
        disks=(Disk((0.2143, 1.8746), 0.5), Disk((-0.2554, -1.8451), 0.5)),
        saddles=((-0.8049, 0.6408), (0.7582, -0.5726)),
        box=((-3.2, 3.2), (-3.2, 3.2)),
        spacing=0.02,
        v_max=1.0,
        bath_stiffness=(1.0, 30.0),
        overdamped=(5e-4, 1.0, 10),
        langevin=(0.02, 5.0, 2),
    )


def hummer_szabo(
    b=5.0, temperature=1.0, dynamics="overdamped", n_bath=0, n_frames_max=5000, n_steps_per_frame=None
) -> ToySystem:
    """A quartic double well with a coupled harmonic coordinate: easy, to show correctness.

    Uniform selection already generates 0.37 transition paths per two-way shot here, so it tells nothing about
    efficiency.

    Parameters
    ----------
    b : float
        height of the barrier.
    temperature : float
        kT; default 1.
    dynamics : {"overdamped", "langevin"}
        overdamped: D = 1, dt = 2e-4, a frame every 10 steps; Langevin: BAOAB with dt = 0.02, friction 5, a
        frame per step.
    n_bath, n_frames_max, n_steps_per_frame
        As for :func:`mueller_brown`.
    """
    return _toy_system(
        "hummer_szabo",
        HummerSzabo(float(b)),
        (temperature, dynamics, n_bath, n_frames_max, n_steps_per_frame),
        disks=(Disk((-1.0, -1.0), 0.3), Disk((1.0, 1.0), 0.3)),
        saddles=((0.0, 0.0),),
        box=((-2.6, 2.6), (-3.2, 3.2)),
        spacing=0.02,
        v_max=float(b) + 3.0 * float(temperature),
        bath_stiffness=(1.0, 30.0),
        overdamped=(2e-4, 1.0, 10),
        langevin=(0.02, 5.0, 1),
    )


def two_gaussian_wells(
    temperature=0.1, dynamics="langevin", n_bath=0, n_frames_max=5000, n_steps_per_frame=None
) -> ToySystem:
    """Two Gaussian wells on a plateau between walls: a wide, flat transition region.

    Parameters
    ----------
    temperature : float
        kT; default 0.1. The wells are 0.65 deep.
    dynamics : {"langevin", "overdamped"}
        Langevin (default): BAOAB with dt = 0.02, friction 2.5, a frame per step; overdamped: D = 0.04 (kT
        over the same friction), dt = 0.002, a frame every 10 steps.
    n_bath, n_frames_max, n_steps_per_frame
        As for :func:`mueller_brown`.
    """
    return _toy_system(
        "two_gaussian_wells",
        TwoGaussianWells(),
        (temperature, dynamics, n_bath, n_frames_max, n_steps_per_frame),
        disks=(Disk((-0.75, -0.5), 0.15), Disk((0.75, 0.5), 0.15)),
        saddles=((0.0, 0.0),),
        box=((-1.9, 1.9), (-1.5, 1.5)),
        spacing=0.01,
        v_max=0.25,
        bath_stiffness=(0.5, 15.0),
        overdamped=(0.002, 0.04, 10),
        langevin=(0.02, 2.5, 1),
    )
