"""From a run to its formula: the right inputs, the right formula, a page that says so, and words where there is nothing."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, softmax

from ops_aimmd import CommittorModel, TrainingSet, fit
from ops_aimmd.analysis.explanation import explain_run, explanation_of, main, relevant_inputs, write_explanation
from ops_aimmd.analysis.run_data import RunData

sys.path.insert(0, str(Path(__file__).parent))

from report_script import two_wells, write_run  # noqa: E402
from test_report import PNG, Page  # noqa: E402

NAMES = ["r <nm>", "theta & phi", "bath 1", "bath 2", "bath 3", "bath 4", "bath 5", "bath 6"]


def run_of(probabilities, seed=1, n=800, states=("A", "<b>B</b>")):
    """Two shots from each of n random points with these probabilities of the states, and a model trained on them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, len(NAMES)))
    counts = np.array([rng.multinomial(2, p) for p in probabilities(x)])
    training_set = TrainingSet(x, counts)
    model = CommittorModel.for_descriptors(len(NAMES), n_states=len(states), seed=seed)
    fit(model, training_set, seed=seed)
    return RunData(pd.DataFrame(), states, training_set, model, descriptor_names=NAMES, name="run <1>")


def two_relevant(x):
    p = expit(2.0 * x[:, 0] - 1.5 * x[:, 1] + 0.5)
    return np.stack([1 - p, p], axis=1)


@pytest.fixture(scope="module")
def explanation():
    return explanation_of(run_of(two_relevant), time_limit=3, seed=1)


def test_inputs_and_formula(explanation):
    assert list(explanation.relevance.index[:2]) == NAMES[:2]
    assert set(NAMES[:2]) <= set(explanation.inputs) and len(explanation.inputs) < len(NAMES)
    best = explanation.front.best
    assert set(best.variables) == set(NAMES[:2])
    x = np.random.default_rng(2).normal(size=(1000, len(NAMES)))
    # 1600 legs determine three constants to some 0.1 each
    assert np.sqrt(np.mean((best.committor(x) - two_relevant(x)[:, 1]) ** 2)) < 0.05
    words = str(explanation)
    assert "800 shots" in words and NAMES[0] in words and "log-odds of <b>B</b>" in words


def test_page(explanation, tmp_path):
    write_explanation(explanation, tmp_path / "page.html", tmp_path / "png")
    page = Page(tmp_path / "page.html")
    assert sorted(page.pictures) == sorted(file.read_bytes() for file in (tmp_path / "png").iterdir())
    assert len(page.pictures) == 3 and all(png.startswith(PNG) and len(png) > 5000 for png in page.pictures)
    assert not {"b", "nm", "script"} & set(page.tags)
    for words in ("run <1>", "<b>B</b>", "r <nm>", "theta & phi", "LaTeX", "picked by description length", "not a law"):
        assert words in page.text, words
    assert "No input matters" not in page.text and "nan" not in page.text


def test_noise_gives_no_formula(explanation, tmp_path):
    coin = explanation_of(run_of(lambda x: np.full((len(x), 2), 0.5)), time_limit=2, seed=1)
    assert coin.front.best.variables == ()
    # of eight inputs without meaning some may pass two standard errors by chance, and then the words are others
    certain = dataclasses.replace(coin, relevance=coin.relevance.assign(standard_error=1.0))
    write_explanation(certain, tmp_path / "page.html")
    assert "No input matters" in Page(tmp_path / "page.html").text and "no input matters" in str(certain)
    unpaid = dataclasses.replace(explanation, front=coin.front)
    assert any("do not yet pay" in warning for warning in unpaid.warnings)
    assert explanation.warnings == []


def test_few_shots_are_said_to_be_few():
    few = explanation_of(run_of(two_relevant, n=60), time_limit=1, seed=1)
    assert any("60 shots are few" in warning for warning in few.warnings)


def test_the_same_candidates_give_the_same_formulas(explanation):
    fronts = [explanation_of(explanation.run, time_limit=60, n_candidates=60, seed=3).front for _ in range(2)]
    assert [str(formula) for formula in fronts[0]] == [str(formula) for formula in fronts[1]]


def test_the_page_is_found_to_be_impossible_before_the_work(checkpoint, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        explain_run(checkpoint=checkpoint, output=tmp_path / "nowhere" / "page.html", time_limit=1000)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="expected a folder"):
        explain_run(checkpoint=checkpoint, output=None, png_folder=tmp_path / "file", time_limit=1000)


def test_a_checkpoint_in_the_place_of_the_storage_is_recognised(checkpoint):
    assert explain_run(checkpoint, output=None, time_limit=1, seed=1).run.name == checkpoint.name


def test_three_states(tmp_path):
    def three(x):
        return softmax(np.stack([0 * x[:, 0], 2 * x[:, 0], -2 * x[:, 1]], axis=1), axis=1)

    found = explanation_of(run_of(three, states=("A", "B", "C")), time_limit=4, seed=1)
    assert list(found.fronts) == ["B", "C"]
    assert found.fronts["B"].best.variables == (NAMES[0],) and found.fronts["C"].best.variables == (NAMES[1],)
    write_explanation(found, tmp_path / "page.html")
    assert "Log-odds of C" in Page(tmp_path / "page.html").text


def test_inputs_that_are_correlated_with_relevant_ones_are_kept():
    table = pd.DataFrame(
        {
            "inputs": ["a sin, a cos", "b", "c", "d", "e", "f", "g"],
            "loss_increase": [1.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0],
            "standard_error": 0.1,
            "correlated": [0, 1, 2, 3, 4, 5, 1],
        }
    )
    names = ["g", "f", "e", "d", "c", "b", "a cos", "a sin"]
    assert relevant_inputs(table, names) == ["g", "e", "d", "c", "b", "a cos", "a sin"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    file = tmp_path_factory.mktemp("run") / "run.aimmd"
    write_run(two_wells(), None, file, 40)
    return file


def test_command_line(checkpoint, tmp_path, capsys):
    page = tmp_path / "explanation.html"
    assert main(["--checkpoint", str(checkpoint), "--output", str(page), "--seconds", "1", "--seed", "1"]) == 0
    printed = capsys.readouterr().out
    assert "40 shots" in printed and "log-odds of B" in printed and Page(page).pictures
    with pytest.raises(SystemExit):
        main([])
    with pytest.raises(SystemExit):
        main(["--checkpoint", str(tmp_path / "nothing.aimmd")])
    assert "nothing.aimmd" in capsys.readouterr().err


def test_chosen_inputs(checkpoint, tmp_path):
    found = explain_run(checkpoint=checkpoint, output=None, names=["u", "v"], inputs=["v"], time_limit=1, seed=1)
    assert found.inputs == ["v"] and list(found.relevance.index) != ["v"]
    assert set(found.front.best.variables) <= {"v"}
    assert not list(tmp_path.glob("*.html"))
