"""Small runs to record, all that a checkpoint file holds in a form that compares, and writers that are killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from ops_aimmd.checkpoint import Checkpoint, FrameBlock, StepLog
from ops_aimmd.checkpoint.documents import encode

PACKAGE = Path(__file__).parents[2] / "ops_aimmd"

WITHOUT_PUBLIC_NAMES = f"""
import sys, types
sys.modules["ops_aimmd"] = types.ModuleType("ops_aimmd")
sys.modules["ops_aimmd"].__path__ = [{str(PACKAGE)!r}]
"""
"""Lets a child process import the folder under test without the package's __init__, which imports OPS and torch."""


def child_process(code, *arguments, **options):
    command = [sys.executable, "-c", WITHOUT_PUBLIC_NAMES + code, *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, **options)


def output_of(code):
    child = child_process(code, text=True)
    return child.communicate()[0]


def make_shot(rng, step=1, d=3, n_states=2, n_frames=4, **changes):
    frames = None
    if n_frames:
        frames = SimpleNamespace(
            descriptors=rng.normal(size=(n_frames, d)),
            outcomes=rng.integers(n_states, size=n_frames),
            is_end=rng.random(n_frames) < 0.3,
            displacements=rng.normal(size=(n_frames, d)).astype(np.float32),
        )
    values = {
        "descriptors": rng.normal(size=d),
        "counts": rng.integers(3, size=n_states).astype(float),
        "weight": rng.random(),
        "step": step,
        "chain": 0,
        "velocity_origin": "boltzmann",
        "predicted_committor": rng.random(n_states),
        "leg_frames": frames,
    }
    return SimpleNamespace(**(values | changes))


def same_bits(one, other):
    one, other = np.asarray(one), np.asarray(other)
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def make_block(rng, n_frames=4):
    arrays = {
        "coordinates": rng.normal(size=(n_frames, 2, 3)),
        "velocities": rng.normal(size=(n_frames, 2, 3)),
        "energy": rng.normal(size=n_frames).astype(np.float32),
        "image": rng.integers(-3, 3, size=(n_frames, 3)),
    }
    return FrameBlock({"engine": "verlet", "time step": 0.1}, arrays)


def make_log(rng, step, kept_steps=6):
    """A block and a path in every step, which shares a frame with the path before; older ones are reduced, then dropped."""
    return StepLog(
        document={"path": f"path {step}", "accepted": step % 3 == 0, "weights": rng.normal(size=3) if step % 2 else None},
        frame_blocks={2 * step: make_block(rng)},
        paths={f"path {step}": [[2 * step, 3, 1], [2 * step, 0, 0], [2 * max(step - 1, 1), 2, 0]]},
        reduce_blocks=[2 * (step - 3)] if step > 3 else [],
        drop_blocks=[2 * (step - kept_steps)],
        drop_paths=[f"path {step - kept_steps}"],
        drop_steps_until=step - kept_steps,
    )


def fill(checkpoint, n_steps=12, seed=1):
    """A small run with something in every table; returns its shots."""
    rng = np.random.default_rng(seed)
    checkpoint.store_file("setup", rng.bytes(300))
    shots = []
    for step in range(1, n_steps + 1):
        new = [make_shot(rng, step, n_frames=step % 4) for _ in range(step % 3)]
        path = f"path {step // 2}"
        checkpoint.record_step(
            step,
            shots=new,
            density_paths={path: (1 + step % 2, 1, rng.normal(size=(4, 3)) if step % 2 == 0 or step == 1 else None)},
            model_version=(step // 3, {"layers": [3, 8, 1]}, {"weight": rng.normal(size=(8, 3))})
            if step % 3 == 0
            else None,
            state={"generator": rng.bit_generator.state, "step": step},
            log=make_log(rng, step),
        )
        shots += new
    return shots


def everything(path):
    """All that a file holds, in a form that compares bit by bit."""
    with Checkpoint.open(path, read_only=True) as checkpoint:
        shots = checkpoint.shots()
        columns = [shots.__dict__[name] for name in shots.__dict__ if name != "auxiliary"]
        columns += list(shots.auxiliary.__dict__.values())
        versions = [checkpoint.model_version(number) for number in checkpoint.model_versions()]
        density = checkpoint.density_paths()
        blocks = {number: checkpoint.frame_block(number) for number in checkpoint.frame_block_numbers()}
        return (
            [(c.dtype.str, c.shape, c.tobytes()) for c in columns],
            [(name, p.count, p.thinning, p.frames.tobytes()) for name, p in density.items()],
            [(number, text, {k: v.tobytes() for k, v in arrays.items()}) for number, text, arrays in versions],
            [(key, encode(checkpoint.state(key))) for key in checkpoint.state_keys()],
            [(step, encode(checkpoint.logged_step(step))) for step in checkpoint.logged_steps()],
            [(name, checkpoint.path_frames(name).tobytes()) for name in checkpoint.path_names()],
            [(n, b.meta, sorted((k, v.dtype.str, v.tobytes()) for k, v in b.arrays.items())) for n, b in blocks.items()],
            [(name, checkpoint.file(name)) for name in checkpoint.file_names()],
            (checkpoint.step, checkpoint.run_id, checkpoint.metadata, checkpoint.last_frame_block),
        )


CHILD = """
import sys, numpy as np
from types import SimpleNamespace
from ops_aimmd.checkpoint import Checkpoint, FrameBlock, StepLog
path = sys.argv[1]
checkpoint = Checkpoint.open(path)
for step in range(checkpoint.step + 1, 10**9):
    values = np.random.default_rng(step).normal(size=(21, 20))
    frames = SimpleNamespace(descriptors=values[1:], outcomes=np.zeros(20, int), is_end=np.zeros(20, bool),
                             displacements=values[1:])
    shot = SimpleNamespace(descriptors=values[0], counts=np.ones(2), weight=1.0, step=step, chain=0,
                           velocity_origin="path", predicted_committor=None, leg_frames=frames)
    model = (step, {}, {"w": np.full(2000, step)}) if step % 7 == 0 else None
    log = StepLog({"step": step, "values": values[0]}, {step: FrameBlock({"step": step}, {"x": values, "n": values > 0})},
                  {str(step): [[step, 0, 0], [max(step - 1, 0), 5, 1]]}, reduce_blocks=[step - 5] if step >= 5 else [],
                  drop_blocks=[step - 10], drop_paths=[str(step - 10)], drop_steps_until=step - 10)
    checkpoint.record_step(step, [shot], {str(step // 3): (step, 1, values)}, model,
                           {"step": step, "path": np.full(5000 * (step % 5), step)}, log)
    print(step, flush=True)
"""


def run_until_killed(path, seconds, code=CHILD):
    """Run the child, kill it, and return the last step that it has acknowledged (-1: none)."""
    child = child_process(code, path)
    first = child.stdout.readline()  # imports take their time: the clock starts with the first step
    time.sleep(seconds)
    child.kill()
    rest = child.stdout.read()
    child.wait()
    lines = (first + rest).split(b"\n")[:-1]
    return int(lines[-1])


def check_child_file(checkpoint):
    """What the child has written is whole, up to the step at which the file stands; returns that step."""
    last = checkpoint.step
    shots = checkpoint.shots()
    assert shots.steps.tolist() == list(range(last + 1))
    assert len(shots.auxiliary) == 20 * (last + 1)
    for step in range(max(0, last - 30), last + 1):
        values = np.random.default_rng(step).normal(size=(21, 20))
        assert same_bits(shots.descriptors[step], values[0])
        assert same_bits(shots.auxiliary.descriptors[shots.auxiliary.shot == step], values[1:])
        assert np.array_equal(shots.auxiliary.displacements[shots.auxiliary.shot == step], values[1:].astype(np.float32))
    assert checkpoint.model_versions() == list(range(0, last + 1, 7))
    if last >= 0:
        assert checkpoint.state("step") == last and (checkpoint.state("path") == last).all()
        density = checkpoint.density_paths()
        assert list(density) == [str(i) for i in range(last // 3 + 1)] and density[str(last // 3)].count == last
    check_child_log(checkpoint, last)
    return last


def check_child_log(checkpoint, last):
    kept = list(range(max(0, last - 9), last + 1))
    assert checkpoint.logged_steps() == checkpoint.frame_block_numbers() == kept and checkpoint.last_frame_block == last
    assert checkpoint.path_names() == sorted(map(str, kept))
    for step in kept:
        values = np.random.default_rng(step).normal(size=(21, 20))
        document, (meta, arrays) = checkpoint.logged_step(step), checkpoint.frame_block(step)
        assert document["step"] == meta["step"] == step and same_bits(document["values"], values[0])
        assert same_bits(arrays["x"], values if step > last - 5 else values.astype(np.float32))
        assert same_bits(arrays["n"], values > 0)
        assert checkpoint.path_frames(str(step)).tolist() == [[step, 0, 0], [max(step - 1, 0), 5, 1]]
