"""Open, analyse, resume and extend a run that an older version has written, and print what was found.

usage: older_files_script.py FILES NAME DIRECTORY
"""

import json
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "files"))

import numpy as np  # noqa: E402
from write_files import learned, steps_in, unpack, went_on  # noqa: E402

import ops_aimmd  # noqa: E402
from ops_aimmd.sampling.shared_learner import movers_under  # noqa: E402
from ops_aimmd.storage.ops_files import open_storage  # noqa: E402


def main(files, name, directory):
    file = unpack(files / f"{name}.xz", directory)
    checkpoint = file.with_suffix(".aimmd")
    found = {"steps": steps_in(file), "learned": learned(checkpoint)}
    storage = open_storage(file)
    sim = storage.pathsimulators[0]
    learner = sim.move_scheme.learner
    queried = [getattr(mover, "selector", mover) for mover in movers_under([sim.root_mover])]
    queried = {id(thing.learner) for thing in queried if hasattr(thing, "learner")}
    found["one learner"] = queried == {id(learner)}
    if np.all(np.sum(found["learned"]["counts"], axis=0)):  # else there is nothing to learn, which is an error
        shots = ops_aimmd.TrainingSet.from_storage(storage, learner.descriptors, learner.states)
        found["shots in the OPS file"] = len(shots)
    storage.close()
    health = ops_aimmd.report(file, checkpoint=checkpoint, output=directory / "report.html")
    found["report"] = [str(health) != "", (directory / "report.html").exists()]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found["went on"] = went_on(file, 1)
    found["warnings"] = [type(warning.message).__name__ for warning in caught]
    found["beside it"] = sorted(part.name for part in directory.glob(f"{checkpoint.name}*"))
    if file.suffix == ".db":
        found["went on"]["steps"] += went_on(file, 1)["steps"]  # the converted file is resumed as any other
    return found


if __name__ == "__main__":
    print("\n" + json.dumps(main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))))
