"""Small random weights in the published layouts, for objectives that have no embedded ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn

import objectives
from objectives import aesthetic, hpsv2, lpips
from objectives._open_clip import TINY_FOLDER
from objectives.base import AnyObjective

HPS_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 32, "head_width": 16, "patch_size": 7},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
HPS_ARCHITECTURE = "small-ViT"


@contextmanager
def small(name: str, folder: Path) -> Iterator[AnyObjective]:
    """Loads any registered objective without network: its embedded weights, or small random ones."""
    about = objectives.describe(name).about
    if about.embedded or about.weights is None:
        yield objectives.load(f"{name}:tiny" if about.embedded else name)
    elif name not in WRITERS:
        pytest.fail(f"objective {name!r} has weights: add a writer of small ones to {__file__}.")
    else:
        with pytest.MonkeyPatch.context() as patch:
            WRITERS[name](folder, patch)
            yield objectives.load(f"{name}:{folder}")


def write_aesthetic(folder: Path, patch: Any = None) -> nn.Sequential:
    """Writes the predictor, as its authors built it, beside a copy of tiny's CLIP; returns the predictor."""
    width = json.loads((TINY_FOLDER / "open_clip_config.json").read_text())["model_cfg"]["embed_dim"]
    torch.manual_seed(0)
    published = nn.Module()
    published.layers = nn.Sequential(
        nn.Linear(width, 32),
        nn.Dropout(0.2),
        nn.Linear(32, 16),
        nn.Dropout(0.2),
        nn.Linear(16, 8),
        nn.Dropout(0.1),
        nn.Linear(8, 4),
        nn.Linear(4, 1),
    )
    for weights in published.parameters():
        nn.init.normal_(weights)
    torch.save(published.state_dict(), folder / aesthetic.FILE_NAME)
    for file in TINY_FOLDER.iterdir():
        shutil.copy(file, folder)
    return published.layers.eval()


def write_hpsv2(folder: Path, patch: pytest.MonkeyPatch) -> Any:
    """Writes a small CLIP as the published file holds the large one; returns the model."""
    (folder / f"{HPS_ARCHITECTURE}.json").write_text(json.dumps(HPS_CONFIG))
    open_clip.add_model_config(folder)
    patch.setattr(hpsv2, "ARCHITECTURE", HPS_ARCHITECTURE)
    model = open_clip.create_model(HPS_ARCHITECTURE).eval()
    randomise(model)
    torch.save({"epoch": 1, "state_dict": model.state_dict()}, folder / hpsv2.FILE_NAME)
    return model


def write_lpips(folder: Path, patch: Any = None) -> dict[str, Tensor]:
    """Writes AlexNet's convolutions under torchvision's names; returns them."""
    from torchvision.models import alexnet

    with torch.device("meta"):
        shapes = {f"features.{name}": value.shape for name, value in alexnet().features.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    values = {
        name: torch.randn(shape, generator=generator) * (2 / max(1, shape[1:].numel())) ** 0.5
        for name, shape in shapes.items()
    }
    torch.save(values, folder / lpips.FILE_NAME)
    return values


def write_pickscore(folder: Path, patch: Any = None) -> Any:
    """Writes a small ``CLIPModel`` with the vocabulary of the large one; returns the model."""
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {"bos_token_id": 49406, "eos_token_id": 49407}
    config = CLIPConfig(
        text_config={**sizes, **special, "vocab_size": 49408, "max_position_embeddings": 77},
        vision_config={**sizes, "image_size": 28, "patch_size": 7},
        projection_dim=16,
    )
    model = CLIPModel(config).eval()
    randomise(model)
    model.save_pretrained(folder)
    return model


def randomise(model: nn.Module) -> None:
    """Gives every weight a size at which the score sees it."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.named_parameters():
        if value.ndim > 1:
            value.data = 0.3 * torch.randn(value.shape, generator=generator)
        elif "logit_scale" in name:
            value.data = torch.tensor(4.6)


WRITERS: dict[str, Callable[[Path, pytest.MonkeyPatch], Any]] = {
    "aesthetic": write_aesthetic,
    "hpsv2": write_hpsv2,
    "lpips": write_lpips,
    "pickscore": write_pickscore,
}
