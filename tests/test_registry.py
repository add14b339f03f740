from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from tests.blueprints import small_blueprint
from tuner import models, registry
from tuner.errors import UserError

ELSEWHERE = small_blueprint()


@pytest.fixture
def third_party(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint(name, f"{__name__}:ELSEWHERE", "tuner.models") for name in ("elsewhere", "flux")]
    monkeypatch.setattr(registry, "_installed", lambda group: points if group == "tuner.models" else [])


def test_other_packages_add_models_through_entry_points(third_party: None) -> None:
    assert "elsewhere" in models.available()
    assert models.blueprint("elsewhere") is ELSEWHERE


def test_a_file_wins_over_an_entry_point_of_the_same_name(third_party: None) -> None:
    assert models.available().count("flux") == 1
    assert models.blueprint("flux").source == "black-forest-labs/FLUX.1-dev"


@pytest.mark.parametrize("name", ["base", "_diffusers", "sd3p5_medium", "nothing"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"Unknown model '{name}'"):
        models.blueprint(name)
