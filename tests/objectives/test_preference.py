"""Scorers of human preference and of sharpness, against the same thing computed another way."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision import transforms

import objectives
from objectives._open_clip import TINY_FOLDER
from objectives.base import CutPromptWarning, Objective, split_dtype
from objectives.hpsv2 import preprocess_longer_side
from tests.objectives import small_checkpoints
from tuner.errors import UserError
from tuner.tiny.scenes import captions, draw_scene, parse_caption, render

PROMPTS = ["a red fox", "Two CATS,  on a mat; photo by night", "snow", "a red fox"]
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8))
        for h, w in ((28, 28), (64, 40), (40, 64), (300, 280))
    ]


def scorer(spec: str) -> Objective:
    objective = objectives.load(spec)
    assert isinstance(objective, Objective)
    return objective


def test_pickscore_is_the_scaled_cosine_of_the_published_code(images: list[Image.Image], tmp_path: Path) -> None:
    model = small_checkpoints.write_pickscore(tmp_path)
    transform = transforms.Compose(
        [
            transforms.Resize(28, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(28),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    tokens = open_clip.get_tokenizer("ViT-H-14")(PROMPTS)
    with torch.no_grad():
        logits = model(pixel_values=torch.stack([transform(i) for i in images]), input_ids=tokens).logits_per_image
    scores = scorer(f"pickscore:{tmp_path}").score(images, PROMPTS)
    assert scores == pytest.approx(logits.diagonal().tolist(), abs=2e-3)
    assert np.ptp(scores) > 1


def test_hpsv2_is_the_cosine_of_the_published_code(
    images: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_checkpoints.write_hpsv2(tmp_path, monkeypatch)
    pixels = torch.stack([preprocess_longer_side(28)(image) for image in images])
    with torch.no_grad():
        image_rows, prompt_rows, _ = model(pixels, open_clip.get_tokenizer("ViT-H-14")(PROMPTS))
    scores = scorer(f"hpsv2:{tmp_path}").score(images, PROMPTS)
    assert scores == pytest.approx((100 * image_rows @ prompt_rows.T).diagonal().tolist(), abs=1e-3)
    assert np.ptp(scores) > 1


def test_hpsv2_shows_the_whole_image_on_black() -> None:
    white = Image.new("RGB", (100, 50), "white")
    pixels = (
        preprocess_longer_side(28)(white) * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    )
    expected = torch.zeros(3, 28, 28)
    expected[:, 7:21] = 1
    torch.testing.assert_close(pixels, expected, atol=1e-4, rtol=0)


def test_aesthetic_is_the_published_head_on_unit_embeddings(images: list[Image.Image], tmp_path: Path) -> None:
    head = small_checkpoints.write_aesthetic(tmp_path)
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{TINY_FOLDER}")
    model.eval()
    with torch.no_grad():
        embeds = model.encode_image(torch.stack([transform(image) for image in images]))
        expected = head(embeds / embeds.norm(dim=-1, keepdim=True))[:, 0].tolist()
    scores = scorer(f"aesthetic:{tmp_path}").score(images, PROMPTS)
    assert scores == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert scores == scorer(f"aesthetic:{tmp_path / small_checkpoints.aesthetic.FILE_NAME}").score(
        images, PROMPTS[::-1]
    )


@pytest.mark.parametrize("name", ["clip", "hpsv2", "image_reward", "pickscore"])
def test_the_prompt_counts(name: str, images: list[Image.Image], tmp_path: Path) -> None:
    with small_checkpoints.small(name, tmp_path) as objective:
        assert isinstance(objective, Objective)
        words = captions("held_out", 2)
        one, other = (objective.score(images[:1], [word])[0] for word in words)
    assert one != pytest.approx(other, abs=1e-3)


def test_a_long_prompt_is_cut_at_77_tokens_with_one_warning(images: list[Image.Image], tmp_path: Path) -> None:
    small_checkpoints.write_pickscore(tmp_path)
    objective = scorer(f"pickscore:{tmp_path}")
    with pytest.warns(CutPromptWarning, match="77 tokens"):
        cut = objective.score(images[:1], ["fox " * 80])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert objective.score(images[:1], ["fox " * 90]) == cut


@pytest.mark.parametrize(
    ("weights", "parts"),
    [
        (None, ("default", "float32")),
        ("tiny", ("tiny", "float32")),
        ("tiny@bfloat16", ("tiny", "bfloat16")),
        ("@float16", ("default", "float16")),
        ("/a@b/folder", ("/a@b/folder", "float32")),
        ("/a@b/folder@float16", ("/a@b/folder", "float16")),
        ("tiny@int8", ("tiny@int8", "float32")),
    ],
)
def test_a_cast_is_written_behind_the_weights(weights: str | None, parts: tuple[str, str]) -> None:
    assert split_dtype(weights, "default") == parts


@pytest.mark.parametrize(("name", "tolerance"), [("clip", 2.0), ("image_reward", 0.1)])
def test_a_cast_network_scores_nearly_as_before(name: str, tolerance: float) -> None:
    prompts = captions("held_out", 4)
    rng = np.random.default_rng(0)
    drawn = [Image.fromarray(render(draw_scene(parse_caption(prompt), rng), 64)) for prompt in prompts]
    exact, cast = (scorer(f"{name}:tiny{dtype}").score(drawn, prompts) for dtype in ("", "@bfloat16"))
    assert cast == pytest.approx(exact, abs=tolerance)
    assert cast != exact


def test_blurred_images_lose_sharpness_while_clip_barely_moves() -> None:
    prompts = captions("held_out", 60)
    rng = np.random.default_rng(0)
    clean = [Image.fromarray(render(draw_scene(parse_caption(prompt), rng), 64)) for prompt in prompts]
    blurred = [image.filter(ImageFilter.GaussianBlur(1)) for image in clean]
    sharp, blunt = (np.array(scorer("sharpness").score(some, prompts)) for some in (clean, blurred))
    near, far = (np.array(scorer("clip:tiny").score(some, prompts)) for some in (clean, blurred))
    assert (blunt < 0.6 * sharp).all()
    assert abs((far - near).mean()) < 0.02 * near.mean()


def test_sharpness_of_one_bright_pixel_is_the_formulas() -> None:
    pixels = np.zeros((9, 9, 3), dtype=np.uint8)
    pixels[4, 4] = 100
    # The Laplacian is -400 at the pixel and 100 at its four neighbours; its mean is 0.
    expected = np.sqrt((400**2 + 4 * 100**2) / 81)
    assert scorer("sharpness").score([Image.fromarray(pixels)], [""]) == pytest.approx([expected])


def test_sharpness_does_not_grow_with_the_number_of_pixels(images: list[Image.Image]) -> None:
    pixels = np.asarray(images[1])
    mirrored = np.block([[[pixels], [pixels[:, ::-1]]], [[pixels[::-1]], [pixels[::-1, ::-1]]]])
    one, four = scorer("sharpness").score([images[1], Image.fromarray(mirrored)], ["", ""])
    assert one == pytest.approx(four)


def test_attributes_tell_right_images_from_wrong_ones() -> None:
    prompts = captions("held_out", 20)
    rng = np.random.default_rng(0)
    drawn = [Image.fromarray(render(draw_scene(parse_caption(prompt), rng), 64)) for prompt in prompts]
    attributes = scorer("attributes")
    assert np.mean(attributes.score(drawn, prompts)) > 0.9
    assert attributes.score(drawn, [*prompts[1:], prompts[0]]) == [0.0] * len(prompts)
    with pytest.raises(UserError, match="Not a caption that tiny knows: 'a red fox'"):
        attributes.score(drawn[:1], ["a red fox"])
