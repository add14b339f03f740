from __future__ import annotations

import pytest

import studies.plan.plan
from tests.studies.toy import find_blueprint


@pytest.fixture(autouse=True)
def toy_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies.plan.plan, "blueprint", find_blueprint)
