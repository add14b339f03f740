"""A small checkpoint in ImageReward's published layout, and the network's mathematics spelled out.

``reference_rewards`` uses nothing but the published names and plain tensor operations: it is the oracle that
the conversion and the configuration of transformers' classes are held against.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

VISION_WIDTH, VISION_LAYERS, PATCH, IMAGE = 128, 2, 8, 16
TEXT_WIDTH, TEXT_LAYERS, TEXT_HEADS = 32, 2, 4
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "fox", "blue", "bird", "sits", "on", "snow"]
HEAD = {0: 16, 2: 12, 4: 8, 6: 4, 7: 1}

MED_CONFIG = {
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": TEXT_WIDTH,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 40,
    "model_type": "bert",
    "num_attention_heads": TEXT_HEADS,
    "num_hidden_layers": TEXT_LAYERS,
    "pad_token_id": 0,
    "add_type_embeddings": False,
    "vocab_size": len(WORDS) + 2,
    "encoder_width": 768,
    "add_cross_attention": True,
}


def shapes() -> dict[str, tuple[int, ...]]:
    """Every name of the published checkpoint, at this size."""
    v, t, mlp = VISION_WIDTH, TEXT_WIDTH, MED_CONFIG["intermediate_size"]
    shapes = {
        "blip.visual_encoder.cls_token": (1, 1, v),
        "blip.visual_encoder.pos_embed": (1, (IMAGE // PATCH) ** 2 + 1, v),
        "blip.visual_encoder.patch_embed.proj.weight": (v, 3, PATCH, PATCH),
        "blip.visual_encoder.patch_embed.proj.bias": (v,),
        "blip.visual_encoder.norm.weight": (v,),
        "blip.visual_encoder.norm.bias": (v,),
        "blip.text_encoder.embeddings.position_ids": (1, 40),
        "blip.text_encoder.embeddings.word_embeddings.weight": (len(WORDS) + 2, t),
        "blip.text_encoder.embeddings.position_embeddings.weight": (40, t),
        "blip.text_encoder.embeddings.LayerNorm.weight": (t,),
        "blip.text_encoder.embeddings.LayerNorm.bias": (t,),
        "blip.vision_proj.weight": (256, v),
        "blip.vision_proj.bias": (256,),
        "blip.text_proj.weight": (256, t),
        "blip.text_proj.bias": (256,),
    }
    for i in range(VISION_LAYERS):
        block = f"blip.visual_encoder.blocks.{i}."
        shapes |= linear(block + "attn.qkv", v, 3 * v) | linear(block + "attn.proj", v, v)
        shapes |= linear(block + "mlp.fc1", v, 2 * v) | linear(block + "mlp.fc2", 2 * v, v)
        for norm in ("norm1", "norm2"):
            shapes |= {f"{block}{norm}.weight": (v,), f"{block}{norm}.bias": (v,)}
    for i in range(TEXT_LAYERS):
        layer = f"blip.text_encoder.encoder.layer.{i}."
        for attention, width in (("attention", t), ("crossattention", v)):
            shapes |= linear(f"{layer}{attention}.self.query", t, t)
            shapes |= linear(f"{layer}{attention}.self.key", width, t)
            shapes |= linear(f"{layer}{attention}.self.value", width, t)
            shapes |= linear(f"{layer}{attention}.output.dense", t, t)
            shapes |= {f"{layer}{attention}.output.LayerNorm.{part}": (t,) for part in ("weight", "bias")}
        shapes |= linear(layer + "intermediate.dense", t, mlp) | linear(layer + "output.dense", mlp, t)
        shapes |= {f"{layer}output.LayerNorm.{part}": (t,) for part in ("weight", "bias")}
    width = t
    for i, out in HEAD.items():
        shapes |= linear(f"mlp.layers.{i}", width, out)
        width = out
    return shapes


def linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def weights() -> dict[str, Tensor]:
    """Random weights of ordinary size, except for an image that is nearly flat inside the network.

    Patches and positions are tiny, so that the norms' epsilon matters: a wrong one changes the reward.
    """
    generator = torch.Generator().manual_seed(0)
    values: dict[str, Tensor] = {}
    for name, shape in shapes().items():
        if name.endswith("position_ids"):
            values[name] = torch.arange(shape[1])[None]
        elif "orm" in name and name.endswith("weight"):
            values[name] = 1 + 0.1 * torch.randn(shape, generator=generator)
        else:
            values[name] = 0.3 * torch.randn(shape, generator=generator)
            if "patch_embed" in name or name.endswith(("cls_token", "pos_embed")):
                values[name] *= 1e-3
    return values


def write_folder(folder: Path, values: dict[str, Tensor]) -> None:
    torch.save(values, folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(MED_CONFIG))
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")


def reference_rewards(w: dict[str, Tensor], pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Rewards (B,) of pixels (B, 3, 16, 16) and token ids (B, L) whose padding is 0 in the mask."""
    x = _image(w, pixels)
    h = w["blip.text_encoder.embeddings.word_embeddings.weight"][ids]
    h = h + w["blip.text_encoder.embeddings.position_embeddings.weight"][: ids.shape[1]]
    h = _norm(w, "blip.text_encoder.embeddings.LayerNorm", h, 1e-12)
    for i in range(TEXT_LAYERS):
        layer = f"blip.text_encoder.encoder.layer.{i}."
        for attention, source, visible in (("attention", h, mask), ("crossattention", x, None)):
            name = f"{layer}{attention}"
            source = h if attention == "attention" else x
            q, k, v = (
                _linear(w, f"{name}.self.{part}", states)
                for part, states in (("query", h), ("key", source), ("value", source))
            )
            out = _linear(w, f"{name}.output.dense", _attend(q, k, v, TEXT_HEADS, visible))
            h = _norm(w, f"{name}.output.LayerNorm", out + h, 1e-12)
        out = _linear(w, layer + "output.dense", F.gelu(_linear(w, layer + "intermediate.dense", h)))
        h = _norm(w, layer + "output.LayerNorm", out + h, 1e-12)
    r = h[:, 0]
    for i in HEAD:
        r = _linear(w, f"mlp.layers.{i}", r)
    return (r[:, 0] - 0.16717362830052426) / 1.0333394966054072


def _image(w: dict[str, Tensor], pixels: Tensor) -> Tensor:
    vision = "blip.visual_encoder."
    x = F.conv2d(pixels, w[vision + "patch_embed.proj.weight"], w[vision + "patch_embed.proj.bias"], stride=PATCH)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([w[vision + "cls_token"].expand(len(x), -1, -1), x], dim=1) + w[vision + "pos_embed"]
    for i in range(VISION_LAYERS):
        block = f"{vision}blocks.{i}."
        q, k, v = _linear(w, block + "attn.qkv", _norm(w, block + "norm1", x, 1e-6)).chunk(3, dim=-1)
        x = x + _linear(w, block + "attn.proj", _attend(q, k, v, VISION_WIDTH // 64))
        hidden = F.gelu(_linear(w, block + "mlp.fc1", _norm(w, block + "norm2", x, 1e-6)))
        x = x + _linear(w, block + "mlp.fc2", hidden)
    return _norm(w, vision + "norm", x, 1e-6)


def _linear(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ w[name + ".weight"].T + w[name + ".bias"]


def _norm(w: dict[str, Tensor], name: str, x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + eps).sqrt()
    return scaled * w[name + ".weight"] + w[name + ".bias"]


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int, visible: Tensor | None = None) -> Tensor:
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if visible is not None:
        logits = logits.masked_fill(visible[:, None, None, :] == 0, float("-inf"))
    return (logits.softmax(dim=-1) @ v).transpose(1, 2).flatten(-2)
