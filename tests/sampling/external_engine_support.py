"""An external engine: a particle that flies through a tube of length 1 with constant speed, in a process of its own."""

import linecache
import os
import sys

import numpy as np
import openpathsampling as paths
from openpathsampling.engines import ExternalEngine, SnapshotDescriptor
from openpathsampling.engines.external_engine import RandomStringFilenames
from openpathsampling.engines.external_snapshots import ExternalMDSnapshot, InternalizedMDSnapshot
from openpathsampling.engines.toy import ToySnapshot

PROGRAM = """
import sys, time
x, v = (float(number) for number in open(sys.argv[2]).read().split())
with open(sys.argv[1], "w") as output:
    while True:
        x += 0.125 * v
        output.write(f"{x} {v}\\n")
        output.flush()
        time.sleep(0.005)
"""


class Flight(ExternalEngine):
    """Snapshots are in memory; `files` tells where the process puts its output, `stops` counts calls of `stop`."""

    snapshot_class = InternalizedSnapshotClass = ToySnapshot

    def __init__(self, options, descriptor=None, template=None):
        if descriptor is None:
            descriptor = SnapshotDescriptor.construct(self.snapshot_class, {"n_spatial": 1, "n_atoms": 1})
        super().__init__(options, descriptor, template)
        self.stops = 0
        self.processes = []

    @classmethod
    def in_directory(cls, directory):
        program = directory / "flight.py"
        program.write_text(PROGRAM)
        names = {"name_prefix": str(directory / "flight"), "filename_setter": RandomStringFilenames()}
        return cls({"n_frames_max": 1000, "engine_directory": str(directory), "default_sleep_ms": 5, **names})

    def start(self, snapshot=None):
        super().start(snapshot)
        self.processes.append(self.proc)

    def stop(self, trajectory):
        self.stops += 1
        super().stop(trajectory)

    def set_filenames(self, number):
        self.input_file, self.output_file = (f"{self.name_prefix}{number}.{kind}" for kind in ("inp", "out"))

    def engine_command(self):
        program = os.path.join(self.engine_directory, "flight.py")
        return f"{sys.executable} -I -S {program} {self.output_file} {self.input_file}"

    def write_frame_to_file(self, filename, snapshot, mode="a"):
        with open(filename, mode) as file:
            file.write(f"{snapshot.xyz[0][0]} {snapshot.velocities[0][0]}\n")

    def read_frame_from_file(self, filename, frame_num):
        numbers = _line(filename, frame_num)
        if numbers is None:
            return None
        return self.snapshot([numbers[0]], [numbers[1]])

    def snapshot(self, x, v):
        return ToySnapshot(coordinates=np.array([x]), velocities=np.array([v]), engine=self)

    def frame(self, x=0.5, v=1.0):
        """A frame that did not come from the process."""
        return self.snapshot([x], [v])

    @property
    def left_running(self):
        return [process for process in self.processes if process.is_running()]


class FlightInFiles(Flight):
    """Snapshots are names of files and positions in them, as those of OPS's GROMACS engine."""

    snapshot_class, InternalizedSnapshotClass = ExternalMDSnapshot, InternalizedMDSnapshot

    def read_frame_from_file(self, filename, frame_num):
        if _line(filename, frame_num) is None:
            return None
        return ExternalMDSnapshot(filename, frame_num, engine=self)

    def read_frame_data(self, filename, frame_num):
        x, v = _line(filename, frame_num)
        return np.array([[x]]), np.array([[v]]), np.eye(3)

    def frame(self, x=0.5, v=1.0):
        name = f"{self.name_prefix}-{x}-{v}.txt"
        with open(name, "w") as file:
            file.write(f"{x} {v}\n")
        return ExternalMDSnapshot(name, 0, engine=self)


def _line(filename, number):
    linecache.checkcache(filename)
    line = linecache.getline(filename, number + 1)
    return [float(part) for part in line.split()] if line.endswith("\n") else None


def position(snapshot):
    return float(snapshot.xyz[0][0])


def ends(cv_function=position):
    """The two ends of the tube."""
    cv = paths.FunctionCV(f"x by {cv_function.__name__}", cv_function)
    return [
        paths.CVDefinedVolume(cv, float("-inf"), 0.0).named("left"),
        paths.CVDefinedVolume(cv, 1.0, float("inf")).named("right"),
    ]
