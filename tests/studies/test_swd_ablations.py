from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from objectives.base import About, Direction
from studies.evaluate import swd_students
from studies.evaluate.ablations import WHOLE, Row
from studies.evaluate.swd_ablations import SCALES, UNTRAINED, contenders, measure, shifted_sigmas, students
from studies.evaluate.swd_orders import Orders
from studies.evaluate.swd_students import Student, train_all
from studies.work.evaluator import Evaluator
from tuner import presets
from tuner.distill.swd import SwdSettings
from tuner.distill.swd.data import ImageFolder
from tuner.distill.swd.networks import distillable
from tuner.errors import UserError
from tuner.flops import price
from tuner.models import blueprint
from tuner.tiny.scenes import captions, random_scene, render

IMAGES = 4


def whole(out: Path, **changes: Any) -> SwdSettings:
    known = blueprint("tiny")
    given: dict[str, Any] = {"scales": SCALES, "sigmas": shifted_sigmas(known), "batch": 1, "rank": 2}
    return SwdSettings(model="tiny", out=out, steps=1, **given | changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0)
    lines = []
    for number in range(IMAGES):
        scene = random_scene(rng, "train")
        Image.fromarray(render(scene, 64)).save(folder / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "text": scene.caption}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def silent(*at: object) -> None:
    pass


def test_the_levels_are_those_that_the_authors_publish() -> None:
    published = presets.load("swd-sd3.5-medium-4").schedule
    assert shifted_sigmas(blueprint("sd3.5-medium")) == pytest.approx(
        [*(stage.sigmas[0] for stage in published.stages), 0], abs=1e-4
    )
    assert tuple(stage.scale for stage in published.stages) == SCALES


def test_every_part_is_changed_once(tmp_path: Path) -> None:
    method = whole(tmp_path)
    found = students(method, blueprint("tiny"))
    assert list(found) == [
        WHOLE,
        "no time shift",
        "late growth",
        "2 full-size steps",
        "3 full-size steps",
        "no patch loss",
        "naive patch loss",
    ]
    changed = {
        name: {key for key, value in one.model_dump().items() if value != getattr(method, key)}
        for name, one in found.items()
    }
    assert changed[WHOLE] == set()
    assert changed["no time shift"] == {"sigmas"}
    assert changed["late growth"] == {"scales"}
    assert changed["2 full-size steps"] == changed["3 full-size steps"] == {"scales", "sigmas"}
    assert changed["no patch loss"] == changed["naive patch loss"] == {"losses"}


def test_full_size_steps_enclose_the_cost_of_the_whole_method(tmp_path: Path) -> None:
    known = blueprint("tiny")
    found = students(whole(tmp_path), known)
    two, method, three = (
        price(found[name].schedule, known).tflops for name in ("2 full-size steps", WHOLE, "3 full-size steps")
    )
    assert two < method < three


@pytest.mark.parametrize("losses", [("mmd",), ("dmd", "gan")])
def test_a_patch_loss_that_cannot_be_taken_away_is_refused(tmp_path: Path, losses: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="give --loss mmd,dmd,gan"):
        students(whole(tmp_path, losses=losses), blueprint("tiny"))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Student]]:
    out = tmp_path_factory.mktemp("runs")
    small = whole(out, scales=(0.5, 1.0), sigmas=(1.0, 0.6, 0.0), losses=("mmd",), rate=1e-2)
    wanted = {WHOLE: small, "2 full-size steps": small.model_copy(update={"scales": (1.0, 1.0)})}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swd_students, "TIMED_STEPS", 1)
        return out, train_all(wanted, data, 2, out, True, silent)


def test_a_student_that_is_finished_is_not_trained_again(data: Path, trained: tuple[Path, Any]) -> None:
    out, found = trained
    settings = SwdSettings(**json.loads((out / "whole-method/run/settings.json").read_text()), out=out)
    seen = []
    again = train_all({WHOLE: settings}, data, 2, out, True, lambda *at: seen.append(at))
    assert again == {WHOLE: found[WHOLE]}
    assert seen == [(f"training: {WHOLE}", 2, 2)]
    with pytest.raises(UserError, match="give --steps 2"):
        train_all({WHOLE: settings}, data, 3, out, True, silent)


def test_students_train_for_the_time_of_the_first_ones_steps(trained: tuple[Path, dict[str, Student]]) -> None:
    timings = {name: one.timing for name, one in trained[1].items()}
    assert timings[WHOLE].steps == 2
    assert all(one.first == 2 and one.steps >= 1 and one.seconds_per_step > 0 for one in timings.values())


@pytest.mark.parametrize(("seconds", "steps"), [(1.0, 10), (0.5, 20), (3.0, 3), (1e3, 1)])
def test_a_slower_step_means_fewer_of_them(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, steps: int
) -> None:
    monkeypatch.setattr(swd_students, "seconds_per_step", lambda timed, *_: [1.0, seconds][: len(timed)])
    given: list[int] = []
    monkeypatch.setattr("tuner.distill.swd.distill", lambda settings, *_, **__: given.append(settings.steps))
    wanted = {WHOLE: whole(tmp_path), "other": whole(tmp_path, losses=("mmd",))}
    found = train_all(wanted, data, 10, tmp_path, True, silent)
    assert given == [found[WHOLE].timing.steps, found["other"].timing.steps]
    assert given[1] == steps


class Brightness:
    name = "brightness"
    unit = ""
    direction: Direction = "maximize"
    about = About()

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        return [float(np.asarray(image).mean()) for image in images]


def test_students_are_compared_on_the_same_noise(trained: tuple[Path, dict[str, Student]]) -> None:
    known = blueprint("tiny")
    found = contenders({name: one.preset for name, one in trained[1].items()}, known)
    evaluator = Evaluator(known.load("cpu"), [Brightness()])
    rows = {row.name: row for row in measure(evaluator, known, found, captions("search", 2), 2, 0, silent)}
    assert list(rows) == [WHOLE, UNTRAINED, "2 full-size steps"]
    score = rows[WHOLE].scores["brightness"]
    assert (score.delta, score.ci95) == (0, (0, 0))
    assert rows[UNTRAINED].scores["brightness"].delta != 0
    assert rows[UNTRAINED].tflops == rows[WHOLE].tflops
    assert rows["2 full-size steps"].paper == {"image_reward": (1.03, -0.09)}


class Nearness:
    """Minus the distance to the real image of the same caption."""

    name = "nearness"
    unit = ""
    direction: Direction = "maximize"
    about = About()

    def __init__(self, data: ImageFolder):
        self._pixels = data.pixels(range(IMAGES), (64, 64)).permute(0, 2, 3, 1).numpy()

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        drawn = np.stack([np.asarray(image, dtype=np.float32) / 127.5 - 1 for image in images])
        return [-float(row.mean()) for row in (drawn - self._pixels) ** 2]


@pytest.fixture(scope="module")
def orders(data: Path) -> dict[str, Row]:
    real = ImageFolder(data)
    model = distillable(blueprint("tiny").load("cpu"))
    rows = Orders(model, [Nearness(real)], real, IMAGES, IMAGES, 0, silent).rows()
    return {row.name: row for row in rows}


def test_orders_are_compared_with_a_at_the_same_level(orders: dict[str, Row]) -> None:
    assert list(orders) == [f"{order} at {level}" for level in (0.4, 0.6, 0.8) for order in "ABC"]
    for level in (0.4, 0.6, 0.8):
        first = orders[f"A at {level}"]
        assert first.scores["nearness"].delta == 0
        assert first.tflops == orders[f"C at {level}"].tflops
    assert orders["B at 0.6"].paper == {"nearness": (17.3, 7.5)}


def test_a_latent_of_full_size_keeps_more_of_the_real_image(orders: dict[str, Row]) -> None:
    """Less noise leaves more of it, too. That C is the worst is the paper's finding, and none of this model."""
    near = {name: row.scores["nearness"].mean for name, row in orders.items()}
    assert all(near[f"A at {level}"] > near[f"{order} at {level}"] for level in (0.4, 0.6) for order in "BC")
    for order in "AB":
        levels = [near[f"{order} at {level}"] for level in (0.4, 0.6, 0.8)]
        assert levels == sorted(levels, reverse=True)
