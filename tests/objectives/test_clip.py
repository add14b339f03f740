from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

import objectives
from objectives import _hub
from objectives._open_clip import TINY_FOLDER
from objectives.clip import Clip
from tuner.errors import UserError
from tuner.tiny.scenes import captions, draw_scene, parse_caption, render

PROMPTS = captions("held_out", 4)
IMAGES = [Image.fromarray(render(draw_scene(parse_caption(p), np.random.default_rng(0)), 64)) for p in PROMPTS]


@pytest.fixture(scope="module")
def clip() -> objectives.Objective:
    return objectives.load("clip:tiny")


def test_score_is_100_times_the_cosine_of_open_clips_embeddings(clip: objectives.Objective) -> None:
    name = f"local-dir:{TINY_FOLDER}"
    model, transform = open_clip.create_model_from_pretrained(name)
    model.eval()
    with torch.no_grad():
        image = model.encode_image(torch.stack([transform(i) for i in IMAGES])).numpy()
        text = model.encode_text(open_clip.get_tokenizer(name)(PROMPTS)).numpy()
    cosine = (image * text).sum(1) / (np.linalg.norm(image, axis=1) * np.linalg.norm(text, axis=1))
    assert clip.score(IMAGES, PROMPTS) == pytest.approx(100 * cosine, abs=1e-3)


def test_local_folder_scores_like_the_embedded_weights_it_is_a_copy_of(
    clip: objectives.Objective, tmp_path: Path
) -> None:
    folder = shutil.copytree(TINY_FOLDER, tmp_path / "my:clip")
    assert objectives.load(f"clip:{folder}").score(IMAGES, PROMPTS) == clip.score(IMAGES, PROMPTS)


def test_prompt_beyond_the_context_is_cut_with_one_warning() -> None:
    clip = objectives.load("clip:tiny")
    long = PROMPTS[0] + " red" * 40
    with pytest.warns(UserWarning, match="16 tokens") as caught:
        cut = clip.score(IMAGES[:2], [PROMPTS[1], long])
    assert repr(long) in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert clip.score(IMAGES[:2], [PROMPTS[1], long + " blue"]) == cut


def test_prompts_that_fit_are_not_warned_about() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        objectives.load("clip:tiny").score(IMAGES, PROMPTS)


@pytest.mark.parametrize(
    ("weights", "quick_gelu"), [("ViT-B-32/openai", True), ("ViT-B-32/laion2b_s34b_b79k", False)]
)
def test_activation_is_the_one_that_the_weights_were_trained_with(
    weights: str, quick_gelu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def create(name: str, **options: Any) -> Any:
        asked.update(options, name=name)
        return torch.nn.Identity(), None

    monkeypatch.setattr(open_clip, "create_model_from_pretrained", create)
    Clip(weights)
    assert asked["force_quick_gelu"] is quick_gelu
    assert f"{asked['name']}/{asked['pretrained']}" == weights


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("ViT-B-23/openai", "Unknown CLIP model 'ViT-B-23'. Did you mean 'ViT-B-32'"),
        ("ViT-B-32/opneai", "Did you mean 'openai'"),
        ("ViT-B-32", "no pretrained tag"),
        ("/no/such/folder", "not a folder"),
    ],
)
def test_wrong_weights_are_refused_with_a_remedy(weights: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        objectives.load(f"clip:{weights}")
    assert weights.split("/")[0] in str(error.value)


def test_folder_without_weights_is_refused(tmp_path: Path) -> None:
    shutil.copy(TINY_FOLDER / "open_clip_config.json", tmp_path)
    with pytest.raises(UserError, match=r"open_clip_model\.safetensors") as error:
        objectives.load(f"clip:{tmp_path}")
    assert str(tmp_path) in str(error.value)


def test_without_network_the_error_says_how_to_give_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(_hub, "_resolves", lambda endpoint: False)
    with pytest.raises(UserError, match="clip:/path/to/folder"):
        Clip("ViT-B-32/openai")
