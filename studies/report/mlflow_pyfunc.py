"""What runs inside a model that `studies.report.mlflow_model` exported: imported by MLflow alone."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import yaml
from mlflow.pyfunc import PythonModel
from pydantic import BaseModel

from studies.work.png import png
from tuner.generation import generate
from tuner.models import ModelOptions, blueprint
from tuner.presets import Preset

if TYPE_CHECKING:
    from tuner.models import FlowModel


class Request(BaseModel):
    """What an image is to show, and the seed of its noise."""

    prompt: str
    seed: int | None = None


class PresetModel(PythonModel):  # type: ignore[misc]
    """Draws an image for every row.

    Args:
        preset: A preset as YAML.
        model: Short name or source of the model.
    """

    def __init__(self, preset: str, model: str):
        self._preset, self._model = Preset.model_validate(yaml.safe_load(preset)), model
        self._flow: FlowModel | None = None

    def load_context(self, context: Any) -> None:
        """Loads the weights, once for all requests."""
        options = self._preset.model_options or ModelOptions()
        if "lora" in context.artifacts:
            _, weight = options.lora_and_weight()
            options = options.model_copy(update={"lora": f"{context.artifacts['lora']}:{weight}"})
        self._flow = blueprint(self._model).with_options(options).load(options=options)

    def predict(self, model_input: list[Request]) -> list[dict[str, str]]:
        """Draws images.

        Args:
            model_input: A prompt for each; where seeds are left out, they are the places in the list.

        Returns:
            ``{"image": TEXT}`` for each: a PNG file in base64.
        """
        prompts = [asked.prompt for asked in model_input]
        seeds = [place if asked.seed is None else asked.seed for place, asked in enumerate(model_input)]
        images = generate(self._flow, prompts, self._preset, seeds).images
        return [{"image": base64.b64encode(png(image)).decode()} for image in images]
