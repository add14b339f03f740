"""The published ImageReward checkpoint: where its files are, and how its names map to ours.

A checkpoint is a folder (or a hub repository) with ``ImageReward.pt`` or ``ImageReward.safetensors``, whose
keys are those of the original code, and ``med_config.json``, which describes the text tower. The shape of the
rest is read from the weights. The tokenizer is ``vocab.txt`` in the same folder or ``bert-base-uncased``.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from objectives import _hub
from objectives._blip_reward import BlipReward, RewardConfig
from tuner.errors import UserError, one_line

T = TypeVar("T")

CHECKPOINT_NAMES = ("ImageReward.safetensors", "ImageReward.pt")
TEXT_CONFIG_NAME = "med_config.json"
VOCABULARY_NAME = "vocab.txt"
HUB_TOKENIZER = "google-bert/bert-base-uncased"

# In the checkpoint, and used by BLIP's other losses or rebuilt by transformers.
_UNUSED = (
    "blip.vision_proj.",
    "blip.text_proj.",
    "blip.text_encoder.embeddings.position_ids",
)

# Applied in this order to every name of the checkpoint.
_RENAMES = (
    (r"^blip\.text_encoder\.", "text."),
    (r"^blip\.visual_encoder\.cls_token$", "vision.embeddings.class_embedding"),
    (r"^blip\.visual_encoder\.pos_embed$", "vision.embeddings.position_embedding"),
    (r"^blip\.visual_encoder\.patch_embed\.proj\.", "vision.embeddings.patch_embedding."),
    (r"^blip\.visual_encoder\.blocks\.", "vision.encoder.layers."),
    (r"^blip\.visual_encoder\.norm\.", "vision.post_layernorm."),
    (r"^(vision\.encoder\.layers\.\d+)\.attn\.qkv\.", r"\1.self_attn.qkv."),
    (r"^(vision\.encoder\.layers\.\d+)\.attn\.proj\.", r"\1.self_attn.projection."),
    (r"^(vision\.encoder\.layers\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
)


@dataclass(frozen=True)
class CheckpointFiles:
    """Where a checkpoint's parts are on this machine; ``vocabulary`` is a file or a hub repository."""

    weights: Path
    text_config: Path
    vocabulary: str


def locate(weights: str) -> CheckpointFiles:
    """Finds a checkpoint's files, fetching them if ``weights`` is a hub repository.

    Args:
        weights: A local folder or ``OWNER/REPO`` on the hub.

    Raises:
        UserError: If the folder lacks a file, or the hub cannot give one.
    """
    folder = Path(weights).expanduser()
    if folder.is_dir():
        return _locate_in_folder(folder)
    if weights.startswith(("/", ".", "~")) or weights.count("/") != 1:
        raise UserError(
            f"ImageReward weights {weights!r} are not a folder. Give a folder that holds "
            f"{CHECKPOINT_NAMES[-1]} and {TEXT_CONFIG_NAME}, or a hub repository as OWNER/REPO."
        )
    checkpoint = fetch(lambda: _hub.download(weights, CHECKPOINT_NAMES[-1]), weights)
    text_config = fetch(lambda: _hub.download(weights, TEXT_CONFIG_NAME), weights)
    return CheckpointFiles(checkpoint, text_config, HUB_TOKENIZER)


def fetch(get: Callable[[], T], what: str) -> T:
    """Calls ``get`` and turns a failed download into a ``UserError`` that says how to do without."""
    try:
        return get()
    except OSError as error:
        reason = one_line(error)
        raise UserError(
            f"ImageReward needs {what!r} from the Hugging Face Hub and cannot get it: {reason} Without "
            f"network, give a local folder that holds {CHECKPOINT_NAMES[-1]}, {TEXT_CONFIG_NAME} and "
            f"{VOCABULARY_NAME} (of {HUB_TOKENIZER}): image_reward:/path/to/folder."
        ) from error


def _locate_in_folder(folder: Path) -> CheckpointFiles:
    found = [folder / name for name in CHECKPOINT_NAMES if (folder / name).is_file()]
    if not found or not (folder / TEXT_CONFIG_NAME).is_file():
        missing = TEXT_CONFIG_NAME if found else " or ".join(CHECKPOINT_NAMES)
        raise UserError(
            f"ImageReward folder {str(folder)!r} holds no {missing}. "
            "Copy the files of https://huggingface.co/zai-org/ImageReward there."
        )
    vocabulary = folder / VOCABULARY_NAME
    return CheckpointFiles(
        found[0],
        folder / TEXT_CONFIG_NAME,
        str(vocabulary) if vocabulary.is_file() else HUB_TOKENIZER,
    )


def load_reward(files: CheckpointFiles) -> BlipReward:
    """Builds the network on the CPU in float32 with a checkpoint's weights, in evaluation mode.

    Raises:
        UserError: If the files are not an ImageReward checkpoint.
    """
    try:
        official = _read_weights(files.weights)
        text_config = json.loads(files.text_config.read_text(encoding="utf-8"))
        network = BlipReward(infer_config(official, text_config))
        network.load_state_dict(convert(official), strict=True)
    except (KeyError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        reason = one_line(error)[:300]
        raise UserError(
            f"{str(files.weights)!r} is not an ImageReward checkpoint that fits "
            f"{str(files.text_config)!r}: {reason}. Take both files from zai-org/ImageReward."
        ) from error
    return network.float().eval()


def infer_config(official: Mapping[str, Tensor], text_config: Mapping[str, Any]) -> RewardConfig:
    """Reads the network's shape from the weights, in the original names, and ``med_config.json``."""
    vision = "blip.visual_encoder."
    patch_weight = official[vision + "patch_embed.proj.weight"]  # (V, 3, patch, patch)
    patch_size = patch_weight.shape[-1]
    patches = official[vision + "pos_embed"].shape[1] - 1
    blocks = {match[1] for key in official if (match := re.match(r"blip\.visual_encoder\.blocks\.(\d+)\.", key))}
    return RewardConfig(
        image_size=round(patches**0.5) * patch_size,
        patch_size=patch_size,
        vision_width=patch_weight.shape[0],
        vision_layers=len(blocks),
        vision_mlp_width=official[vision + "blocks.0.mlp.fc1.weight"].shape[0],
        text=text_config,
        head_widths=tuple(official[f"mlp.layers.{i}.weight"].shape[0] for i in _head_layers(official)),
    )


def convert(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames a checkpoint's weights to those of ``BlipReward``; unused ones are left out."""
    # The original head counts its dropout layers: 0, 2, 4, 6, 7 are ours 0 to 4.
    head = {str(theirs): ours for ours, theirs in enumerate(_head_layers(official))}
    converted = {}
    for key, value in official.items():
        if key.startswith(_UNUSED):
            continue
        name = key
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        name = re.sub(r"^mlp\.layers\.(\d+)\.", lambda match: f"head.{head[match[1]]}.", name)
        converted[name] = value
    return converted


def _head_layers(official: Mapping[str, Tensor]) -> list[int]:
    return sorted(int(match[1]) for key in official if (match := re.match(r"mlp\.layers\.(\d+)\.weight$", key)))


def _read_weights(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return cast("dict[str, Tensor]", load_file(path))
    return cast("dict[str, Tensor]", torch.load(path, map_location="cpu", weights_only=True))


def load_tokenizer(vocabulary: str) -> Any:
    """Builds BLIP's tokenizer: BERT's lower-case word pieces with two extra special tokens.

    Args:
        vocabulary: A ``vocab.txt`` file, one word piece per line, or a hub repository.
    """
    from transformers import BertTokenizer

    if Path(vocabulary).is_file():
        words = Path(vocabulary).read_text(encoding="utf-8").splitlines()
        tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(words)})
    else:
        path = fetch(lambda: _hub.download(vocabulary, VOCABULARY_NAME), vocabulary)
        return load_tokenizer(str(path))
    tokenizer.add_special_tokens({"bos_token": "[DEC]", "additional_special_tokens": ["[ENC]"]})
    return tokenizer
