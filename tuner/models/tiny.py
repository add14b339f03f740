"""`tiny`: a small FLUX that ships inside the package and runs anywhere; see ``docs/tiny.md``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tuner.models._diffusers import PipelineBlueprint
from tuner.models.flux import BLUEPRINT as FLUX
from tuner.models.flux import FluxBlueprint
from tuner.tiny import PIPELINE_FOLDER


def embedded(family: type[FluxBlueprint], name: str, folder: Path) -> PipelineBlueprint:
    """Makes the blueprint of a pipeline that ships inside the package.

    Args:
        family: The blueprint's class.
        name: Short name of the model.
        folder: The saved pipeline.
    """

    def read(part: str) -> Mapping[str, Any]:
        config: Mapping[str, Any] = json.loads((folder / part).read_text())
        return config

    known = family(**{field.name: getattr(FLUX, field.name) for field in fields(FLUX)})
    return replace(
        known.reconfigured(str(folder), read),
        name=name,
        license="Apache-2.0",
        height=64,
        width=64,
        steps=50,
        scorers="tiny",
    )


BLUEPRINT = embedded(FluxBlueprint, "tiny", PIPELINE_FOLDER)
