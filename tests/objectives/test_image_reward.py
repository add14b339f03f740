from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import objectives
from objectives import _hub
from objectives import _image_reward_checkpoint as checkpoint
from objectives._blip_reward import tokenize
from objectives.image_reward import PROMPT_TOKENS, ImageReward, preprocess
from objectives.tiny.training import reward as training
from tests.objectives import published_layout as layout
from tuner.errors import UserError

PROMPTS = ["a red fox", "a blue bird sits on a red fox", "snow"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published")
    layout.write_folder(path, layout.weights())
    return path


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in ((16, 16), (40, 24), (9, 9))
    ]


def reference(prompts: list[str], images: list[Image.Image], weights: dict[str, torch.Tensor]) -> list[float]:
    words = {word: i for i, word in enumerate(layout.WORDS)}
    rows = [[2, *(words[word] for word in prompt.split()), 3] for prompt in prompts]
    ids = torch.tensor([row + [0] * (PROMPT_TOKENS - len(row)) for row in rows])
    pixels = torch.stack([preprocess(layout.IMAGE)(image) for image in images])
    return layout.reference_rewards(weights, pixels, ids, (ids != 0).long()).tolist()


def test_published_checkpoint_gives_the_rewards_of_the_spelled_out_network(
    folder: Path, images: list[Image.Image]
) -> None:
    scores = objectives.load(f"image_reward:{folder}").score(images, PROMPTS)
    assert scores == pytest.approx(reference(PROMPTS, images, layout.weights()), abs=1e-4)
    assert np.ptp(scores) > 0.01  # the oracle sees a difference between the pairs


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("blip.visual_encoder.blocks.1.attn.qkv.weight", 0.0),
        ("blip.visual_encoder.pos_embed", 2.0),
        ("blip.text_encoder.encoder.layer.0.crossattention.self.value.weight", 0.0),
        ("mlp.layers.6.weight", 0.5),
    ],
)
def test_every_part_of_the_checkpoint_reaches_the_network(
    name: str, factor: float, tmp_path: Path, images: list[Image.Image]
) -> None:
    changed = layout.weights()
    changed[name] *= factor
    layout.write_folder(tmp_path, changed)
    scores = objectives.load(f"image_reward:{tmp_path}").score(images, PROMPTS)
    assert scores == pytest.approx(reference(PROMPTS, images, changed), abs=1e-4)
    assert scores != pytest.approx(reference(PROMPTS, images, layout.weights()), abs=1e-4)


def test_norms_and_attention_are_those_of_the_published_code(folder: Path) -> None:
    network = checkpoint.load_reward(checkpoint.locate(str(folder)))
    assert network.vision.config.layer_norm_eps == 1e-6
    assert network.text.config.layer_norm_eps == 1e-12
    assert network.text.config._attn_implementation == "eager"
    assert network.text.config.encoder_hidden_size == layout.VISION_WIDTH
    assert network.text.pooler is None
    assert not network.training


def test_padding_does_not_change_the_reward(folder: Path, images: list[Image.Image]) -> None:
    files = checkpoint.locate(str(folder))
    network, tokenizer = checkpoint.load_reward(files), checkpoint.load_tokenizer(files.vocabulary)
    pixels = torch.stack([preprocess(layout.IMAGE)(images[0])])
    with torch.no_grad():
        short, long = (
            float(network(pixels, *tokenize(tokenizer, ["a red fox"], length)[:2]))
            for length in (5, PROMPT_TOKENS)
        )
    assert short == pytest.approx(long, abs=1e-4)


def test_conversion_uses_every_name_that_the_published_scorer_uses() -> None:
    converted = checkpoint.convert(layout.weights())
    unused = [name for name in layout.shapes() if "_proj." in name or name.endswith("position_ids")]
    assert len(converted) == len(layout.shapes()) - len(unused)
    assert not any(name.startswith(("blip.", "mlp.")) for name in converted)


def test_names_of_the_embedded_weights_are_the_published_ones() -> None:
    published = layout.weights()
    names = {training.published_name(name) for name in checkpoint.convert(published)}
    assert names == {name for name in published if "_proj." not in name and not name.endswith("position_ids")}


def test_prompt_beyond_35_tokens_is_cut_with_one_warning(folder: Path, images: list[Image.Image]) -> None:
    objective = objectives.load(f"image_reward:{folder}")
    long = " ".join(["red"] * 40)
    with pytest.warns(UserWarning, match="35 tokens") as caught:
        cut = objective.score(images[:2], ["a red fox", long])
    assert repr(long) in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert objective.score(images[:2], ["a red fox", long + " snow"]) == cut  # what is cut has no effect


def test_prompt_of_exactly_35_tokens_is_not_warned_about(folder: Path, images: list[Image.Image]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        objectives.load(f"image_reward:{folder}").score(images[:1], [" ".join(["red"] * (PROMPT_TOKENS - 2))])


@pytest.mark.parametrize("missing", ["ImageReward.pt", "med_config.json"])
def test_incomplete_folder_is_named_with_what_it_lacks(missing: str, tmp_path: Path) -> None:
    layout.write_folder(tmp_path, layout.weights())
    (tmp_path / missing).unlink()
    with pytest.raises(UserError, match=missing) as error:
        objectives.load(f"image_reward:{tmp_path}")
    assert str(tmp_path) in str(error.value)


def test_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    values = layout.weights()
    del values["blip.visual_encoder.blocks.1.norm2.bias"]
    layout.write_folder(tmp_path, values)
    with pytest.raises(UserError, match="not an ImageReward checkpoint"):
        objectives.load(f"image_reward:{tmp_path}")


def test_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    layout.write_folder(tmp_path, layout.weights())
    (tmp_path / "ImageReward.pt").write_text("<html>not found</html>")
    with pytest.raises(UserError, match="not an ImageReward checkpoint"):
        objectives.load(f"image_reward:{tmp_path}")


@pytest.mark.parametrize("weights", ["/no/such/folder", "./none", "banana"])
def test_weights_that_are_no_folder_and_no_repository_are_refused(weights: str) -> None:
    with pytest.raises(UserError, match="not a folder"):
        ImageReward(weights)


def test_without_network_the_error_says_how_to_give_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(_hub, "_resolves", lambda endpoint: False)
    with pytest.raises(UserError, match="image_reward:/path/to/folder"):
        ImageReward("nobody/nothing")
