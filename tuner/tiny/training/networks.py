"""The untrained parts of the pipeline: transformer, text encoders and their tokenizer, scheduler."""

from __future__ import annotations

from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from tuner.tiny.scenes import VOCABULARY

TEXT_TOKENS = 10  # the longest caption has nine words; one more ends it
LATENT_CHANNELS = 8
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
TEXT_WIDTH = 64
SHIFTS = ((16, 2.0), (64, 3.0))  # (packed tokens, sigma shift) at 32 and at 64 pixels


def build_transformer() -> Any:
    """Returns a FLUX transformer of width 128 with two double and four single blocks, 2.3M parameters.

    It has no guidance embedding: the model is trained without guidance, so a step is one forward pass.
    """
    return FluxTransformer2DModel(
        in_channels=4 * LATENT_CHANNELS,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=False,
        axes_dims_rope=(4, 14, 14),
    )


def build_t5() -> Any:
    """Returns the encoder whose token states the transformer attends to."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(VOCABULARY) + 3,
            d_model=TEXT_WIDTH,
            d_kv=16,
            d_ff=2 * TEXT_WIDTH,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            relative_attention_num_buckets=16,
            relative_attention_max_distance=16,
        )
    )


def build_clip() -> Any:
    """Returns the encoder whose pooled state modulates every block of the transformer."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(VOCABULARY) + 3,
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TEXT_TOKENS,
            bos_token_id=1,
            eos_token_id=1,
            pad_token_id=0,
        )
    )


def build_tokenizer() -> Any:
    """Returns the tokenizer of both encoders: one token per word, an end mark, lower case."""
    words = [PAD, END, UNKNOWN, *VOCABULARY]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=TEXT_TOKENS,
    )


def build_scheduler() -> Any:
    """Returns FLUX's scheduler: mu, the logarithm of the sigma shift, is linear in the number of tokens."""
    import math

    (low, low_shift), (high, high_shift) = SHIFTS
    return FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_image_seq_len=low,
        max_image_seq_len=high,
        base_shift=math.log(low_shift),
        max_shift=math.log(high_shift),
    )
