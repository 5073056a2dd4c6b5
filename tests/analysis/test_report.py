"""The page about a run: nothing is missing, nothing comes from elsewhere, and it warns of what is wrong with real runs."""

import base64
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import openpathsampling as paths
import pandas as pd
import pytest
import torch
from child_processes import result_of
from openpathsampling.engines import EngineMaxLengthError
from plain_integrators import plain

from ops_aimmd import CommittorModel, load_learner
from ops_aimmd.analysis.health import assess
from ops_aimmd.analysis.report import PICTURES, main, report, write_page
from ops_aimmd.analysis.run_data import RunData, read_run
from ops_aimmd.analysis.series import step_table
from ops_aimmd.storage.file_access import UnreadableFileError
from ops_aimmd.systems import toy
from ops_aimmd.systems.toy import ToyDistance

sys.path.insert(0, str(Path(__file__).parent))

import report_script  # noqa: E402
from report_script import QUICK, summary, two_wells, write_run  # noqa: E402

PNG = b"\x89PNG\r\n\x1a\n"


def titles(health):
    return {finding.title for finding in health.warnings}


def child(*arguments):
    return result_of(report_script.__file__, *arguments)


class Page(HTMLParser):
    """Checks that tags are closed in order, and gathers text, attributes and pictures."""

    EMPTY = {"meta", "img", "br", "link"}

    def __init__(self, file):
        super().__init__()
        self.source = Path(file).read_text(encoding="utf-8")
        self.tags, self.attributes, self.text, self.open = [], [], "", []
        self.feed(self.source)
        assert not self.open, self.open
        data = [value for name, value in self.attributes if name == "src"]
        self.pictures = [base64.b64decode(value.removeprefix("data:image/png;base64,"), validate=True) for value in data]

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run in a netCDF file with its checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    storage = paths.Storage(str(folder / "run.nc"), "w")
    write_run(two_wells(150), storage, folder / "run.aimmd", 50)
    storage.close()
    return folder


# ---- the page --------------------------------------------------------------------------------------------------------


def test_the_page_is_whole_and_stands_alone(run, tmp_path):
    health = report(str(run / "run.nc"), str(run / "run.aimmd"), tmp_path / "page.html", tmp_path / "png" / "of run")
    page = Page(tmp_path / "page.html")
    files = sorted((tmp_path / "png" / "of run").iterdir())
    assert [file.stem for file in files] == sorted(picture.name for picture in PICTURES)
    assert sorted(page.pictures) == sorted(file.read_bytes() for file in files)
    assert all(png.startswith(PNG) and len(png) > 5000 for png in page.pictures)
    assert "script" not in page.tags and "link" not in page.tags
    assert not re.search(r"https?:|url\(|@import", page.source)
    assert ("name", "viewport") in page.attributes
    for finding in [*health.warnings, *health.cautions]:
        assert finding.title in page.text and finding.seen in page.text and finding.advice in page.text
    for words in ("Calibration", "States", "run.nc", "50 shots", "independent paths", "time units"):
        assert words in page.text, words
    assert "nan" not in page.text and "None" not in page.text and "$" not in page.text
    assert ("No warnings" in page.text) == health.healthy


def test_green_line_and_warnings(run, tmp_path):
    health = assess(read_run(checkpoint=run / "run.aimmd"))
    bad = type(health)(**{**vars(health), "warnings": [health.cautions[0]], "cautions": []})
    good = type(health)(**{**vars(health), "warnings": [], "cautions": []})
    write_page(good, tmp_path / "good.html")
    write_page(bad, tmp_path / "bad.html")
    good, bad = Page(tmp_path / "good.html"), Page(tmp_path / "bad.html")
    assert "No warnings." in good.text and ("class", "box good") in good.attributes
    assert "No warnings." not in bad.text and ("class", "box warning") in bad.attributes


def test_names_of_users_are_text(run, tmp_path):
    data = read_run(checkpoint=run / "run.aimmd")
    named = RunData(
        **{
            **vars(data),
            "states": ["<b>A</b>", "B & $C$"],
            "name": "<script>alert(1)</script>",
            "descriptor_names": ["$\\broken{", "<i>"],
            "notes": ["<u>"],
        }
    )
    write_page(assess(named), tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert not {"script", "b", "i", "u"} & set(page.tags)
    for name in ("<b>A</b>", "B & $C$", "<script>alert(1)</script>", "<u>"):
        assert name in page.text


def test_a_run_that_is_too_short_to_tell_says_so(run, tmp_path):
    """Path lengths that wander, and independent ones of the same run, repeated, as the control."""
    rows = read_run(checkpoint=run / "run.aimmd").table
    rng = np.random.default_rng(1)
    long = pd.concat([rows] * 20, ignore_index=True).assign(step=np.arange(1000))
    wandering = rows.assign(path_length=np.round(np.exp(5 + 0.1 * np.cumsum(rng.standard_normal(50)))))
    steady = long.assign(path_length=rng.integers(80, 200, 1000), accepted=rng.random(1000) < 0.3)
    steady["generated"] = steady["accepted"] | (rng.random(1000) < 0.1)
    texts = []
    for table in (wandering, steady):
        write_page(assess(RunData(table, ["A", "B"])), tmp_path / "page.html")
        texts.append(Page(tmp_path / "page.html").text)
    assert "Too short to tell" in texts[0] and re.search(
        r"independent paths \(95 %\)\s*fewer than \d+ \(too short", texts[0]
    )
    assert re.search(r"mean transition-path time \(frames\)\s*\d+ \(error: too short to tell\)", texts[0])
    assert "oo short to tell" not in texts[1]
    assert re.search(r"independent paths \(95 %\)\s*\d+ \(\d+ to \d+\)", texts[1])
    assert re.search(r"fraction accepted\s*0.\d+ ± 0.\d+ \(95 %: 0.\d+ to 0.\d+\)", texts[1])


# ---- where it comes from ---------------------------------------------------------------------------------------------


def test_all_files_tell_the_same(run, tmp_path):
    """OPS file and checkpoint, each alone, and an open storage."""
    both = read_run(run / "run.nc", run / "run.aimmd")
    storage = paths.Storage(str(run / "run.nc"), "r")
    alone = read_run(storage)
    checkpoint = read_run(checkpoint=run / "run.aimmd")
    states = two_wells().states
    expected = step_table(storage.steps, states)
    storage.close()
    for found in (both, alone, checkpoint):
        pd.testing.assert_frame_equal(found.table[expected.columns], expected, check_dtype=False)
        assert found.states == ["A", "B"] and found.same_ensemble
    assert (both.time_unit, checkpoint.time_unit) == ("time units", "frames")
    assert np.isclose(both.time_per_frame, 150 * 2e-4)
    known, evaluated = summary(assess(both)), summary(assess(alone))
    assert {**known, "slope": 0} == {**evaluated, "slope": 0}
    assert np.allclose(known["slope"], evaluated["slope"], atol=1e-4)  # float32 in the OPS file
    for ours, theirs in zip(both.paths, alone.paths, strict=True):
        assert np.allclose(ours, theirs, atol=1e-5)
    assert any("no checkpoint" in note for note in alone.notes) and not both.notes


def test_simstore(tmp_path):
    both, opened, alone = child("simstore", tmp_path)
    assert both["shots"] == 20 and both["known rows"] > 5
    assert {**both, "slope": 0} == {**opened, "slope": 0} == {**alone, "slope": 0}
    assert len(Page(tmp_path / "both.html").pictures) == len(PICTURES) == len(list((tmp_path / "png").iterdir()))


def test_a_running_simulation(tmp_path):
    """Read by another process in the middle of a run: both files, or what can be read of them."""
    found = []

    def look(sim, step_number, step_info, state, results, hook_state):
        if results.mccycle == 20:
            found.append(child("report", tmp_path / "run.nc", tmp_path / "run.aimmd"))
            found.append({"shots": len(read_run(checkpoint=tmp_path / "run.aimmd").table)})

    hook = paths.beta.hooks.PathSimulatorHook()
    hook.implemented_for, hook.after_step = ["after_step"], look
    storage = paths.Storage(str(tmp_path / "run.nc"), "w")
    sampler = write_run(two_wells(150), storage, tmp_path / "run.aimmd", 22, hooks=[hook], fit_options=QUICK)
    storage.close()
    assert [result["shots"] for result in found] == [20, 20]
    assert Page(tmp_path / "run.html").pictures
    assert len(read_run(tmp_path / "run.nc", tmp_path / "run.aimmd").table) == 22 == sampler.step


def test_an_ops_file_that_cannot_be_read(run, tmp_path):
    broken = tmp_path / "run.nc"
    broken.write_bytes((run / "run.nc").read_bytes()[:20_000])
    health = report(broken, run / "run.aimmd", tmp_path / "page.html")
    assert len(health.run.table) == 50
    assert "could not be read" in Page(tmp_path / "page.html").text
    with pytest.raises(UnreadableFileError):
        report(broken, output=tmp_path / "other.html")


def test_what_does_not_fit_is_said(run, tmp_path):
    write_run(two_wells(), None, tmp_path / "other.aimmd", 3)
    storage = paths.Storage(str(tmp_path / "other.nc"), "w")
    write_run(two_wells(), storage, tmp_path / "second.aimmd", 3)
    storage.close()
    with pytest.raises(ValueError, match="does not hold the run of the checkpoint"):
        report(run / "run.nc", tmp_path / "second.aimmd", tmp_path / "page.html")
    with pytest.raises(ValueError, match="got neither"):
        report(output=tmp_path / "page.html")
    with pytest.raises(FileNotFoundError, match="nothing.aimmd"):
        report(checkpoint=tmp_path / "nothing.aimmd", output=tmp_path / "page.html")
    with pytest.raises(FileNotFoundError, match="nothing.nc"):
        report(tmp_path / "nothing.nc", output=tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("options", [{"keep_paths": False}, {"shooting": "one-way"}])
def test_a_checkpoint_that_does_not_hold_everything(options, tmp_path):
    """What the log lacks comes from the OPS file; without it the page says so or leaves it out."""
    system = two_wells(150)
    storage = paths.Storage(str(tmp_path / "run.nc"), "w")
    sampler = write_run(system, storage, tmp_path / "run.aimmd", 25, fit_options=QUICK, **options)
    expected = step_table(storage.steps, system.states)
    storage.close()
    assert len(expected) == 25 and sampler.step == 25
    both = read_run(tmp_path / "run.nc", tmp_path / "run.aimmd")
    pd.testing.assert_frame_equal(both.table[expected.columns], expected, check_dtype=False)
    alone = report(checkpoint=tmp_path / "run.aimmd", output=tmp_path / "page.html")
    assert len(alone.run.table) == 25
    assert Page(tmp_path / "page.html").pictures
    assert np.isclose(assess(both).on_the_fly["B"].slope, alone.on_the_fly["B"].slope)


def test_a_file_made_without_this_package(tmp_path):
    system = two_wells(150)
    network = system.network()
    storage = paths.Storage(str(tmp_path / "stock.nc"), "w")
    scheme = paths.OneWayShootingMoveScheme(network, engine=system.engine)
    conditions = scheme.initial_conditions_from_trajectories(system.initial_trajectory(seed=1))
    sampler = paths.PathSampling(storage, scheme, conditions)
    sampler.output_stream = open("/dev/null", "w")
    sampler.run(40)
    storage.close()
    with pytest.raises(ValueError, match="states=\\["):
        report(tmp_path / "stock.nc", output=tmp_path / "page.html")
    bare = report(tmp_path / "stock.nc", output=tmp_path / "page.html", states=system.states)
    assert bare.channels is None and "descriptors=" in Page(tmp_path / "page.html").text
    health = report(tmp_path / "stock.nc", None, tmp_path / "page.html", None, system.descriptors, system.states)
    page = Page(tmp_path / "page.html")
    assert len(health.run.table) == 40 and health.channels is not None and health.efficiency is None
    assert len(page.pictures) == 5  # nothing was expected, nothing predicted
    assert "no predictions" in page.text


def test_command_line(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([str(run / "run.nc"), "--checkpoint", str(run / "run.aimmd"), "--png-folder", "png"]) == 0
    assert "independent paths" in capsys.readouterr().out
    assert (tmp_path / "report.html").exists() and (tmp_path / "png" / "counts.png").exists()
    with pytest.raises(SystemExit) as stopped:
        main(["nothing.nc"])
    assert stopped.value.code == 1 and "nothing.nc" in capsys.readouterr().err


# ---- real runs, healthy and not --------------------------------------------------------------------------------------


def assessed(tmp_path, system, n_steps, **options):
    write_run(system, None, tmp_path / "run.aimmd", n_steps, **options)
    return assess(read_run(checkpoint=tmp_path / "run.aimmd"))


def test_a_healthy_run_fires_nothing(tmp_path):
    health = assessed(tmp_path, two_wells(), 300, seed=2)  # one seed of eight has too few independent paths
    assert titles(health) == set()
    # what no run of one chain can know, and what 300 steps cannot tell
    cautions = {caution.title for caution in health.cautions}
    assert "One channel only" in cautions and cautions <= {"One channel only", "Too short to tell"}


class Distorted(torch.nn.Module):
    """Log-odds of another model, times a factor."""

    def __init__(self, model, factor):
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x):
        return self.factor * self.model(x)


@pytest.mark.parametrize(
    "factor, expected",
    [
        (1, None),
        (10, "The model is too sure"),
        pytest.param(0, "The model knows nothing", marks=pytest.mark.slow),  # the words are tested in test_health
        pytest.param(-1, "The model is wrong", marks=pytest.mark.slow),
    ],
)
def test_frozen_models_that_are_wrong(run, tmp_path, factor, expected):
    """A model of a run, with its log-odds multiplied, guides a new run; times 1 is the control."""
    network = Distorted(load_learner(run / "run.aimmd").model, factor)
    with pytest.raises(ValueError, match="network"):
        write_run(two_wells(), None, tmp_path / "run.aimmd", 120, model=CommittorModel(network, n_descriptors=2))
        read_run(checkpoint=tmp_path / "run.aimmd")
    health = assess(read_run(checkpoint=tmp_path / "run.aimmd", network=network))
    about_model = {title for title in titles(health) if "model" in title or "constant" in title}
    if expected is None:
        assert about_model == set()
    else:
        assert expected in about_model
    assert health.adaptation.frozen_fraction == 1 and health.adaptation.n_versions == 1


def volume(name, centre, radius):
    return paths.CVDefinedVolume(ToyDistance(f"distance to {name} {centre}", list(centre)), 0.0, radius).named(name)


def between(system, states, seed):
    """A transition path between other states, cut from long dynamics of two legs from a saddle."""
    engine, rng = system.engine, np.random.default_rng(seed)
    np.random.seed(seed)  # noqa: NPY002 - the toy engine draws from it
    either = states[0] | states[1]
    outside = [lambda path, trusted=False: not either(path[-1])]
    for _ in range(100):
        start = system.initial_trajectory(rng)
        middle = start[len(start) // 2]
        try:
            legs = [engine.generate(point, running=outside) for point in (middle, middle.reversed)]
        except EngineMaxLengthError:
            continue
        if sum(map(len, legs)) > engine.options["n_frames_max"]:
            continue
        ends = [states[1](leg[-1]) for leg in legs]
        if ends[0] != ends[1]:
            backward, forward = (legs[1], legs[0]) if ends[0] else (legs[0], legs[1])
            return backward.reversed + forward[1:]
    raise AssertionError("no path between the states")


@pytest.mark.parametrize(
    "centre, radius, expected",
    [
        pytest.param((-1.0, -1.0), 0.3, set(), marks=pytest.mark.slow),
        ((-1.0, -1.0), 1.3, {"A state is too large"}),
        pytest.param((-1.45, -1.0), 0.15, {"Legs without an outcome"}, marks=pytest.mark.slow),
    ],
)
def test_mis_specified_states(tmp_path, centre, radius, expected):
    """State A of the two wells at (-1, -1) and (1, 1): right, reaching to the saddle, beside its minimum."""
    system = plain(toy.hummer_szabo(n_steps_per_frame=60, n_frames_max=200))
    states = [volume("A", centre, radius), volume("B", (1.0, 1.0), 0.3)]
    path = between(system, states, 1)
    health = assessed(tmp_path, system, 60, states=states, path=path)
    assert {title for title in titles(health) if "state" in title or "Legs" in title} == expected


@pytest.mark.slow
def test_paths_that_wait_at_the_door_of_a_state(tmp_path):
    """Without a length limit that cuts them the legs find a disk beside the minimum, after many visits to its basin."""
    system = toy.wolfe_quapp(n_steps_per_frame=40)
    states = [volume("A", (-0.3857, 2.3746), 0.3), volume("B", (-0.2554, -1.8451), 0.5)]
    health = assessed(tmp_path, system, 100, states=states, path=between(system, states, 1))
    assert "A state misses its basin" in titles(health)
    assert health.states[0].dwell > 3 * health.states[1].dwell


@pytest.mark.slow
def test_a_chain_in_one_of_two_channels_is_not_called_healthy_without_reserve(tmp_path):
    """Wolfe-Quapp has two channels; a chain begun in one has switched rarely, or never."""
    system = toy.wolfe_quapp(n_steps_per_frame=40)
    health = assessed(tmp_path, system, 150)
    assert health.channels.n_switches < 10
    found = titles(health) | {caution.title for caution in health.cautions}
    assert {"The paths stay in their channel", "One channel only"} & found
