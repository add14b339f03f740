from __future__ import annotations

import numpy as np
import torch

from tuner import presets
from tuner.lora import applied
from tuner.models import ModelOptions, blueprint
from tuner.sampling import sample
from tuner.tiny.checker import accuracy
from tuner.tiny.scenes import captions

PROMPTS = captions("search", 96)


def test_the_shipped_student_is_right_more_often_than_its_own_schedule_untrained() -> None:
    preset = presets.load("swd-tiny-4")
    model = blueprint(preset.model).load("cpu", "float32")

    def joint(options: ModelOptions | None) -> float:
        with torch.no_grad(), applied(model, options):
            latents = sample(model, preset.schedule, model.encode(PROMPTS), range(len(PROMPTS)))
            return accuracy([np.asarray(image) for image in model.decode(latents)], PROMPTS)["joint"]

    assert joint(preset.model_options) > joint(None)
