from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import EntryPoint

import pytest
from PIL.Image import Image

import objectives
from objectives import _hub
from tuner import registry
from tuner.errors import UserError


class Brightness:
    """A third party's objective."""

    name = "brightness"
    unit = "grey levels"
    direction = "maximize"

    def __init__(self, weights: str | None, device: str) -> None:
        self.weights, self.device = weights, device

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        return [float(image.convert("L").getpixel((0, 0))) for image in images]


@pytest.fixture
def third_party(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("brightness", f"{__name__}:Brightness", "tuner.objectives")
    monkeypatch.setattr(registry, "_installed", lambda group: [point] if group == "tuner.objectives" else [])


def test_files_are_the_names() -> None:
    assert {"clip", "image_reward"} <= set(objectives.available())
    assert not {"base", "tiny", "_hub"} & set(objectives.available())


@pytest.mark.parametrize(
    ("spec", "parsed"),
    [
        ("clip", ("clip", None)),
        (" clip ", ("clip", None)),
        ("clip:tiny", ("clip", "tiny")),
        ("clip:ViT-B-32/laion2b_s34b_b79k", ("clip", "ViT-B-32/laion2b_s34b_b79k")),
        ("clip:hf-hub:someone/something", ("clip", "hf-hub:someone/something")),
        ("image_reward:/path/to/folder", ("image_reward", "/path/to/folder")),
    ],
)
def test_spec_is_split_at_its_first_colon(spec: str, parsed: tuple[str, str | None]) -> None:
    assert objectives.parse(spec) == parsed


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("image-reward", "Did you mean 'image_reward'"),
        ("clp:tiny", "Did you mean 'clip'"),
        ("base", "Unknown objective 'base'"),
        ("", "Unknown objective ''"),
        ("clip:", "no weights after the colon"),
    ],
)
def test_bad_specs_are_refused_with_a_remedy(spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        objectives.load(spec)


@pytest.mark.usefixtures("third_party")
def test_entry_point_adds_an_objective() -> None:
    assert "brightness" in objectives.available()
    objective = objectives.load("brightness:bright:er", device="cuda:1")
    assert isinstance(objective, Brightness)
    assert (objective.weights, objective.device) == ("bright:er", "cuda:1")


def test_offline_mode_lasts_no_longer_than_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(_hub, "_resolves", lambda endpoint: False)
    with suppress(RuntimeError), _hub.no_wait_without_network():
        assert constants.HF_HUB_OFFLINE
        raise RuntimeError
    assert not constants.HF_HUB_OFFLINE


def test_reachable_hub_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(_hub, "_resolves", lambda endpoint: True)
    with _hub.no_wait_without_network():
        assert not constants.HF_HUB_OFFLINE


def test_what_cannot_be_judged_is_refused_before_there_are_images() -> None:
    captions = ["red ring on plain gray", "blue cross left of red ring on striped white"]
    specs = ["attributes", "clip:tiny", "tests.studies.toy:whiteness"]
    objectives.check_fit(specs, captions, videos=False)
    with pytest.raises(UserError, match=r"'attributes' cannot judge a prompt. Not a caption .* 'a red fox'"):
        objectives.check_fit(specs, [*captions, "a red fox"], videos=False)
    objectives.check_fit(specs[1:], ["a red fox"], videos=False)
    objectives.check_fit(["temporal_consistency"], ["a red fox"], videos=True)
    with pytest.raises(UserError, match="'temporal_consistency' scores videos, but the model draws images"):
        objectives.check_fit(["temporal_consistency"], ["a red fox"], videos=False)
