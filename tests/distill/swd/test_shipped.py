from __future__ import annotations

import numpy as np
import torch

import objectives
from tuner import presets
from tuner.lora import Lora, applied
from tuner.models import blueprint
from tuner.sampling import sample
from tuner.tiny.scenes import captions

PROMPTS = captions("search", 24)


def test_the_shipped_student_beats_its_own_schedule_untrained() -> None:
    preset = presets.load("swd-tiny-4")
    model = blueprint(preset.model).load("cpu", "float32")
    reward = objectives.load("image_reward:tiny")

    def mean_reward(lora: Lora | None) -> float:
        with torch.no_grad(), applied(model, lora):
            latents = sample(model, preset.schedule, model.encode(PROMPTS), range(len(PROMPTS)))
            return float(np.mean(reward.score(model.decode(latents), PROMPTS)))

    assert mean_reward(preset.lora) > mean_reward(None)
