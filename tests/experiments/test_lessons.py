"""What lessons ask is checked fairly, shows no answer before it was tried, and every lesson has the same form."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from rsovlib.errors import InputError
from rsovlib.experiments.lessons import alignment as lesson_alignment
from rsovlib.experiments.lessons import data as lesson_data
from rsovlib.experiments.lessons import graphs as lesson_graphs
from rsovlib.experiments.lessons import pixels as lesson_pixels
from rsovlib.experiments.lessons import superpixels as lesson_superpixels
from rsovlib.experiments.lessons import variation as lesson_variation
from rsovlib.experiments.lessons.exercises import ArrayExercise, Exercise, Feedback, NumberExercise, Prediction

LESSONS = sorted((Path(__file__).resolve().parents[2] / "notebooks" / "lessons").glob("*.ipynb"))


def shown(found: Feedback | Exercise | Prediction) -> str:
    """All that a learner sees of it."""
    return repr(found) + found._repr_html_()


# ---- the tool ----------------------------------------------------------------------------------------------------


def test_a_number_is_right_within_its_tolerance_only():
    exercise = NumberExercise("How much?", lambda: 42.125, tolerance=0.5, hint="Count.", explanation="Because.")
    assert exercise.check(42.6).right
    assert "Because." in repr(exercise.check(42.125))
    assert "Too large." in exercise.check(42.7).text
    assert "Too small." in exercise.check(-3).text
    assert "Count." in exercise.check(0).text
    for nonsense in ("many", [1, 2], float("nan"), float("inf")):
        assert exercise.check(nonsense).state == "wrong"


def test_nothing_gives_the_answer_away_before_it_was_given():
    calls = []

    def solution() -> float:
        calls.append(1)
        return 42.125

    exercise = NumberExercise("How much?", solution, tolerance=0.5, hint="Count.", explanation="It is 42.125.")
    assert exercise.check().state == "open"
    assert not calls
    for found in (exercise, exercise.check(), exercise.check(1), exercise.check("?")):
        assert "42" not in shown(found)


def test_an_array_says_what_is_wrong_with_it():
    right = np.array([[1.0, 2.0], [3.0, 4.0]])
    exercise = ArrayExercise("Which?", lambda: right, tolerance=0.01)
    assert exercise.check(right.tolist()).right
    assert exercise.check(torch.tensor(right, requires_grad=True)).right
    assert "50% of its values" in exercise.check([[1, 2], [9, 9]]).text
    assert "(2,)" in exercise.check([1, 2]).text
    assert exercise.check("no array").state == "wrong"
    assert exercise.check([[1, 2], [3]]).state == "wrong"
    assert exercise.check(np.full((2, 2), np.nan)).state == "wrong"


def test_a_prediction_is_compared_with_what_happened():
    question = Prediction("Up or down?", {"a": "up", "b": "down"})
    assert "a) up" in repr(question)
    assert question.outcome("a", "3 > 2", "a").state == "right"
    assert "You predicted b)" in question.outcome("a", "3 > 2", "b").text
    untold = question.outcome("a", "3 > 2")
    assert untold.state == "told"
    assert "3 > 2" in untold.text
    with pytest.raises(InputError, match="'c'"):
        question.outcome("a", "", "c")
    with pytest.raises(InputError):
        question.outcome("z")


def test_feedback_is_safe_html_with_a_sign_besides_the_colour():
    text = Feedback("wrong", "x < y & <b>z</b>\nsecond")._repr_html_()
    assert "x &lt; y &amp; &lt;b&gt;" in text
    assert "<br>second" in text
    assert "→" in text


# ---- the lessons' own exercises --------------------------------------------------------------------------------------

SCENE = lesson_variation.made_up_scene(24, 3, 1.2, 0)


def geometric_mean() -> np.ndarray:
    powered = SCENE.p_clip ** (1 / 1.2) * SCENE.p_dino ** (0.2 / 1.2)
    return powered / powered.sum(axis=0)


EXERCISES = {
    "omega": (lesson_pixels.neighbourhood_exercise(), np.exp([[0, -0.5, -2], [-0.5, 0, -0.5], [-2, -0.5, 0]])),
    "chain": (lesson_graphs.chain_exercise(), [0.5, 0.25, 0.0]),
    "steps": (lesson_graphs.steps_exercise(0.9), int(np.ceil(np.log(0.01) / np.log(0.9)))),
    "achievable": (lesson_superpixels.achievable_exercise(), 100 * (3 + 4 + 3) / 12),
    "weights": (lesson_superpixels.weights_exercise(), [[1, 0.1, 1], [1, 0.1, 1], [1, 1, 1]]),
    "fusion": (lesson_variation.fusion_exercise(SCENE), geometric_mean()),
    "edge": (lesson_variation.edge_exercise(0.3, 0.1), 0.03),
    "guessing": (lesson_alignment.guessing_exercise(255), np.log(256)),
    "loss": (lesson_alignment.loss_exercise(), -np.log(np.e**2 / (np.e**2 + 2))),
    "light": (lesson_data.light_exercise(np.array([[0.2, 0.4], [0.0, 0.6]])), 0.7),
    "iou": (lesson_data.iou_exercise(), 4 / 6),
}


@pytest.mark.parametrize("name", EXERCISES)
def test_every_exercise_takes_the_right_answer_and_no_other(name: str):
    exercise, answer = EXERCISES[name]
    assert exercise.check(answer).right
    assert not exercise.check(np.asarray(answer) + 1).right
    assert not exercise.check(np.asarray(answer) * 0).right
    assert exercise.hint
    assert exercise.check(None).state == "open"


# ---- the notebooks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", LESSONS, ids=[path.stem for path in LESSONS])
def test_every_lesson_has_aim_time_predictions_exercises_and_references(path: Path):
    cells = nbformat.read(path, as_version=4).cells
    first = cells[0].source
    assert "**Aim:**" in first
    minutes = re.search(r"\*\*Time:\*\*\D*(\d+)", first)
    assert minutes is not None
    assert 20 <= int(minutes.group(1)) <= 40
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    outcomes = re.findall(r"[._]outcome\(", code)
    assert outcomes, "a prediction before an experiment, and its outcome"
    assert len(re.findall(r"^guess\w* = None", code, flags=re.M)) == len(outcomes), "one guess an outcome"
    assert len(re.findall(r"^answer\w* = None", code, flags=re.M)) == code.count(".check(") >= 1
    assert any(cell.source.startswith("## References") for cell in cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("path", LESSONS, ids=[path.stem for path in LESSONS])
def test_every_guess_stands_between_its_question_and_its_outcome(path: Path):
    code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    modules = {name: f"rsovlib.experiments.lessons.{module}" for name, module in _lesson_modules("\n".join(code))}
    asked = [place for place, source in enumerate(code) if re.fullmatch(r"\w+\.[A-Z_]+", source.strip())]
    assert asked
    for place in asked:
        name, question = code[place].strip().split(".")
        choices = getattr(importlib.import_module(modules[name]), question).choices
        guess = re.fullmatch(r"(guess\w*) = None  # (.*)", code[place + 1].strip())
        assert guess is not None, f"a line for the guess follows {code[place]}"
        assert re.findall(r'"(\w)"', guess.group(2)) == list(choices), "and names every choice"
        later = [source for source in code[place + 2 :] if re.search(rf"\b{guess.group(1)}\b", source)]
        assert "outcome(" in later[0], "the next cell with the guess compares it with what happened"


@pytest.mark.parametrize("path", LESSONS, ids=[path.stem for path in LESSONS])
def test_exercises_say_how_to_answer(path: Path):
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    assert "## Exercises\n\nReplace `None` by your answer and run the cell." in text


def _lesson_modules(code: str) -> list[tuple[str, str]]:
    """What a notebook calls the modules of its lesson: name -> module."""
    return [(name, module) for module, name in re.findall(r"lessons import (\w+) as (\w+)", code)]


# ---- experiments -------------------------------------------------------------------------------------------------


def test_the_smoothing_weight_is_judged_by_where_the_best_stands():
    found = lesson_variation.beta_sweep(SCENE, (0.0, 0.3))
    fused = geometric_mean().argmax(axis=0)
    assert found[0.0] == pytest.approx(100 * (fused == SCENE.truth).mean(), abs=0.5)
    outcome = lesson_variation.beta_outcome
    assert "a)" in outcome({0: 70.0, 1: 80.0, 3: 90.0}).text
    assert "b)" in outcome({0: 70.0, 1: 90.0, 3: 80.0}).text
    assert "c)" in outcome({0: 70.0, 1: 60.0, 3: 50.0}).text


def test_the_optimum_lies_between_primal_and_dual():
    problem = SCENE.problem(0.3)
    result, precise = (lesson_variation.solve_cscp(**problem, tolerance=gap, check_every=2) for gap in (1e-3, 1e-6))
    assert "a)" in lesson_variation.between_outcome(result, precise, 24 * 24).text
    # A "solution" of another problem, whose optimum is higher, lies outside.
    other = lesson_variation.solve_cscp(**SCENE.problem(3.0), tolerance=1e-6)
    assert "c)" in lesson_variation.between_outcome(result, other, 24 * 24).text


def test_solvers_that_do_not_arrive_lose_the_race():
    problem = SCENE.problem(0.3)
    names = ["primal-dual, Euclidean", "primal-dual, entropic", "dual ascent"]
    runs = {
        name: lesson_variation.solve_cscp(**problem, method=method, tolerance=1e-3, max_iterations=count, check_every=5)
        for name, method, count in zip(names, ("pdhg", "pdhg-entropic", "dual"), (300, 300, 5), strict=True)
    }
    outcome = lesson_variation.fastest_outcome(runs)
    assert "c)" not in outcome.text.splitlines()[0]
    assert "dual ascent: 5, not there" in outcome.text
    table = lesson_variation.race_table(runs)
    assert list(table.index) == names
    assert table.loc["dual ascent", "iterations"] == 5


@pytest.mark.parametrize(("distances", "choice"), [([1, 0.5, 0.009], "b"), ([1] * 44 + [0.009], "a"), ([1] * 60, "c")])
def test_the_bound_is_compared_with_what_was_needed(distances: list[float], choice: str):
    assert lesson_graphs.steps_of_bound(0.9) == 44  # 0.9^44 = 0.0097
    outcome = lesson_graphs.bound_outcome({0.9: np.array(distances)}, 0.9)
    assert f"What happened: {choice})" in outcome.text


def test_walkers_start_again_with_probability_one_minus_alpha():
    transition = csr_matrix(np.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 1.0, 0.0]]))
    for alpha, steps in ((1.0, 3), (0.5, 4)):
        dense, start = transition.toarray(), np.eye(3)[0]
        expected = start.copy()
        for _ in range(steps):
            expected = alpha * expected @ dense + (1 - alpha) * start
        np.testing.assert_allclose(lesson_graphs.walker(transition, 0, steps, alpha), expected)
    assert lesson_graphs.walker(transition, 0, 50, 0.5)[0] > 0.5


def test_the_study_of_temperatures_is_a_mean_over_its_trainings():
    rng = torch.Generator().manual_seed(0)
    tokens = torch.nn.functional.normalize(torch.randn(3, 12, 8, generator=rng), dim=-1)
    pairs = lesson_alignment.Pairs(
        tokens,
        torch.randn(3, 12, 5, generator=rng),
        torch.arange(36).reshape(3, 12) % 4,
        np.zeros((3, 8, 8, 3), np.uint8),
        np.zeros((3, 8, 8), np.float32),
        (3, 4),
    )
    study = lesson_alignment.temperature_study(pairs, pairs, [0.07, 1.0], steps=4, seeds=(0, 1))
    both = [lesson_alignment.temperature_study(pairs, pairs, [0.07, 1.0], steps=4, seeds=(seed,)) for seed in (0, 1)]
    np.testing.assert_allclose(study.table, (both[0].table + both[1].table) / 2)
    np.testing.assert_allclose(study.losses[0.07], (both[0].losses[0.07] + both[1].losses[0.07]) / 2)
    assert study.chance == pytest.approx(100 / 36)
    assert study.chance_class == pytest.approx(25)
    assert "of 2 trainings" in study.temperature_outcome("a").text
    study.plot().draw_without_rendering()


def test_small_encoders_train_on_one_thread_and_give_the_others_back():
    @lesson_alignment.one_thread()
    def fail() -> None:
        raise RuntimeError(f"{torch.get_num_threads()} thread")

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError, match="1 thread"):
            fail()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_course_page_lists_every_lesson_with_its_title_and_time():
    page = (Path(__file__).resolve().parents[2] / "docs" / "course.md").read_text(encoding="utf-8")
    for path in LESSONS:
        first = nbformat.read(path, as_version=4).cells[0].source
        title = first.splitlines()[0].removeprefix("# ")
        minutes = re.search(r"\*\*Time:\*\*\D*(\d+)", first)
        assert minutes is not None
        assert f"| `{path.stem}` {title} | {minutes.group(1)} |" in page
