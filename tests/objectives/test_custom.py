from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import objectives
from objectives import Objective
from tuner.errors import UserError

IMAGES = [Image.new("L", (4, 4), level) for level in (10, 200)]
PROMPTS = ["a fox", "a bird"]
MODULE = """
import numpy as np

def brightness(images, prompts):
    return [np.float32(np.asarray(image).mean()) for image in images]

def darkness(images, prompts):
    return np.array([255.0 - np.asarray(image).mean() for image in images])

darkness.direction = "minimize"

def sideways(images, prompts):
    return [0.0] * len(images)

sideways.direction = "left"

def one_number(images, prompts): return 3.5
def words(images, prompts): return ["3.5"] * len(prompts)
def column(images, prompts): return np.zeros((len(prompts), 1))
def too_few(images, prompts): return [1.0]
def not_a_number(images, prompts): return [0.0, float("nan")]
def nothing(images, prompts): pass

constant = 3
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is the current directory and not on the path, as for a console script."""
    (tmp_path / "myscores").mkdir()
    (tmp_path / "myscores" / "__init__.py").touch()
    (tmp_path / "myscores" / "light.py").write_text(MODULE)
    (tmp_path / "lonely.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import no_such_library\n")
    (tmp_path / "faulty.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield tmp_path
    for name in ("myscores", "myscores.light", "lonely", "broken", "faulty"):
        sys.modules.pop(name, None)


def load(spec: str) -> Objective:
    objective = objectives.load(spec)
    assert isinstance(objective, Objective)
    return objective


@pytest.mark.parametrize(
    ("spec", "name", "direction"),
    [
        ("myscores.light:brightness", "myscores.light:brightness", "maximize"),
        ("myscores.light:brightness:minimize", "myscores.light:brightness", "minimize"),
        ("myscores.light:darkness", "myscores.light:darkness", "minimize"),
        ("myscores.light:darkness:maximize", "myscores.light:darkness", "maximize"),
        ("lonely:brightness", "lonely:brightness", "maximize"),
    ],
)
def test_a_function_is_an_objective(spec: str, name: str, direction: str) -> None:
    objective = load(spec)
    assert (objective.name, objective.direction) == (name, direction)
    assert objectives.direction(spec) == direction
    assert objectives.parse(spec)[0] == name
    scores = objective.score(IMAGES, PROMPTS)
    assert scores == ([10.0, 200.0] if "brightness" in name else [245.0, 55.0])
    assert all(type(score) is float for score in scores)


def test_the_path_is_left_as_it_was() -> None:
    before = list(sys.path)
    load("lonely:brightness")
    assert sys.path == before


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("myscores.light:brightnes", "module 'myscores.light' has nothing named 'brightnes'"),
        ("myscores.light:constant", "'myscores.light:constant' is no function but 3"),
        ("myscores.light:sideways", "direction 'left'; use one of maximize, minimize"),
        ("myscores.light:brightness:down", "direction 'down'; use one of maximize, minimize"),
        ("myscores.heavy:brightness", "Nor is there a module 'myscores.heavy'"),
        ("no_such:brightness", "Unknown objective 'no_such'.*Nor is there a module 'no_such'"),
        ("clp:tiny", "Did you mean 'clip'"),
        ("broken:brightness", "'broken:brightness' cannot be imported, its module raises.*no_such_library"),
        ("faulty:brightness", "raises ZeroDivisionError"),
        ("my-scores:brightness", "Unknown objective 'my-scores'"),
    ],
)
def test_what_is_no_function_is_refused_in_one_line(spec: str, message: str) -> None:
    for check in (objectives.load, objectives.direction):
        with pytest.raises(UserError, match=message) as error:
            check(spec)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("one_number", "must return one number per prompt, but it returned 3.5"),
        ("words", "must return one number per prompt"),
        ("column", "must return one number per prompt"),
        ("nothing", "but it returned None"),
        ("too_few", "returned 1 scores for 2 prompts"),
        ("not_a_number", "a score that is not finite"),
    ],
)
def test_what_is_no_score_fails_with_the_reason(function: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load(f"lonely:{function}").score(IMAGES, PROMPTS)
    assert f"'lonely:{function}'" in str(error.value)
    assert not isinstance(error.value, UserError)


def test_a_registered_name_is_never_a_module(package: Path) -> None:
    (package / "clip.py").write_text(MODULE)
    assert objectives.parse("clip:brightness") == ("clip", "brightness")
    with pytest.raises(UserError, match="CLIP"):
        objectives.load("clip:brightness")
