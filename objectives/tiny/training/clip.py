"""Trains the embedded CLIP: open_clip's own class on renders, with one-attribute-wrong captions as negatives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from objectives._open_clip import TINY_FOLDER
from objectives.tiny.training import data, degradations
from objectives.tiny.training.loop import Run, train

CONTEXT_LENGTH = 16
BATCH = 128

_CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 128,
        "vision_cfg": {
            "image_size": data.IMAGE_SIZE,
            "patch_size": 8,
            "width": 128,
            "layers": 3,
            "head_width": 32,
            "mlp_ratio": 2.0,
        },
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": len(data.vocabulary()),
            "hf_tokenizer_name": "local",  # open_clip then reads the tokenizer from the model's own folder
            "width": 128,
            "heads": 4,
            "layers": 2,
            "mlp_ratio": 2.0,
            "pool_type": "eos",
            "eos_id": data.SPECIAL_TOKENS.index("[SEP]"),
        },
    },
    "preprocess_cfg": {"mean": list(data.PIXEL_MEAN), "std": list(data.PIXEL_STD)},
}


def run(work: Path, steps: int, seed: int, bank_size: int) -> None:
    """Trains the model in ``work/clip`` and writes the weights that the package ships."""
    import open_clip

    bank = data.load_bank(work, bank_size, seed)
    _write_folder(TINY_FOLDER)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{TINY_FOLDER}")
    torch.manual_seed(seed)
    config = json.loads(json.dumps(_CONFIG["model_cfg"]))  # open_clip writes into what it is given
    model = open_clip.CLIP(**config)

    def loss_of(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = rng.choice(len(bank.captions), BATCH, replace=False)
        captions = [bank.captions[row] for row in rows]
        wrong = [data.wrong_caption(caption, rng) for caption in captions]
        pixels = _augment(bank.images[rows, rng.integers(2)].float() / 255, rng)
        # Plain attention in bfloat16 takes half of the time of the CPU's fused kernel.
        with torch.autocast("cpu", dtype=torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            images = model.encode_image(data.normalise(pixels))
            texts = model.encode_text(tokenizer(captions + wrong))
        cosines = F.normalize(images.float(), dim=-1) @ F.normalize(texts.float(), dim=-1).T
        logits = model.logit_scale.exp().clamp(max=100) * cosines  # (BATCH, 2 BATCH)
        target = torch.arange(BATCH)
        loss = F.cross_entropy(logits, target) + F.cross_entropy(logits[:, :BATCH].T, target)
        hard = (logits.diagonal() > logits.diagonal(BATCH)).float().mean().item()
        first = (logits.argmax(dim=1) == target).float().mean().item()
        return loss, {"true_is_first": first, "true_over_wrong": hard}

    train(model, loss_of, Run(work / "clip", steps, learning_rate=2e-3, seed=seed))
    _save(model, TINY_FOLDER)


def _augment(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Spoils half of the images mildly: a caption stays true of a soft or noisy image."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    spoil = degradations.DEGRADATIONS[int(rng.integers(len(degradations.DEGRADATIONS)))]
    half = len(pixels) // 2
    amounts = 0.7 * torch.rand(half, generator=generator)
    return degradations.quantise(torch.cat([spoil(pixels[:half], amounts, generator), pixels[half:]]))


def _write_folder(folder: Path) -> None:
    from transformers import BertTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    words = {word: index for index, word in enumerate(data.vocabulary())}
    BertTokenizer(vocab=words).save_pretrained(folder)
    (folder / "open_clip_config.json").write_text(json.dumps(_CONFIG, indent=2) + "\n")


def _save(model: Any, folder: Path) -> None:
    from safetensors.torch import save_file

    weights = {name: value.to(torch.float16).contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
