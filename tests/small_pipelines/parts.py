"""Tokenizers, text encoders, an autoencoder and a way to run that several small pipelines use."""

from __future__ import annotations

from typing import Any

WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "blue", "fox", "circle", "above", "square"]


def word_tokenizer(longest: int = 8) -> Any:
    """Makes a tokenizer with one token per word."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=longest
    )


def chat_tokenizer() -> Any:
    """Makes a word tokenizer that can lay out a conversation, its messages plain or in parts."""
    tokenizer = word_tokenizer(1024)
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'] }} "
        "{% if message['content'] is string %}{{ message['content'] }}"
        "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %} {% endfor %}"
    )
    return tokenizer


def t5(width: int = 32) -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(vocab_size=len(WORDS), d_model=width, d_kv=8, d_ff=64, num_layers=1, num_heads=4)
    )


def clip_config(**changes: Any) -> Any:
    from transformers import CLIPTextConfig

    values: dict[str, Any] = {
        "vocab_size": len(WORDS),
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 8,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "bos_token_id": 3,
    }
    return CLIPTextConfig(**(values | changes))


def decoder_values(width: int, layers: int = 1) -> dict[str, Any]:
    """Returns what configurations of language models agree on."""
    return {
        "vocab_size": len(WORDS),
        "hidden_size": width,
        "intermediate_size": 16,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": width // 2,
    }


def vae_values() -> dict[str, Any]:
    """Returns the configuration of an autoencoder that shrinks an image to half its sides, in four channels."""
    return {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "latent_channels": 4,
        "sample_size": 32,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }


def vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(**vae_values(), shift_factor=0.1, scaling_factor=0.5)


def ready(pipe: Any) -> Any:
    """Turns dropout, gradients and the progress bar off."""
    for component in pipe.components.values():
        if hasattr(component, "eval"):
            component.eval().requires_grad_(False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generators(seeds: list[int]) -> list[object]:
    """Makes the CPU generators that a stock pipeline draws its noise from."""
    import torch

    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def latents(
    pipe: Any,
    blueprint: Any,
    prompts: list[str],
    seeds: list[int],
    steps: int,
    size: tuple[int, int],
    **more: Any,
) -> Any:
    """Runs a pipeline with the arguments that most of them take, and ``more``; returns its latents as they are.

    What is None is left to the pipeline's default.
    """
    arguments = {
        "prompt": list(prompts),
        "height": size[0],
        "width": size[1],
        "num_frames": None if blueprint.fps is None else blueprint.frames,
        "num_inference_steps": steps,
        "guidance_scale": blueprint.guidance,
        "generator": generators(seeds),
        "output_type": "latent",
    } | more
    return pipe(**{name: value for name, value in arguments.items() if value is not None})[0]


def with_scheduler(pipe: Any, scheduler: Any) -> Any:
    """Makes a pipeline of the same components with another scheduler, and leaves the given one as it is."""
    other = type(pipe)(**(pipe.components | {"scheduler": scheduler}))
    other.set_progress_bar_config(disable=True)
    return other
