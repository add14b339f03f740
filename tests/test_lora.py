from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

from tests.small_flux import small_flux
from tuner import generate
from tuner.distill.swd.networks import ADAPTER, denoiser, trainable, with_lora
from tuner.errors import UserError
from tuner.lora import applied
from tuner.models import ModelOptions, blueprint, wrap
from tuner.presets import Preset

TARGETS = ["attn.to_q", "attn.to_k", "ff.net.2"]


def peft_folder(folder: Path, rank: int = 2, alpha: int = 6) -> Path:
    """Saves a LoRA as PEFT does, which is how SwD's are published; its alpha is not its rank."""
    wrapped = get_peft_model(
        small_flux().transformer,
        LoraConfig(r=rank, lora_alpha=alpha, target_modules=TARGETS, init_lora_weights=False),
    )
    wrapped.save_pretrained(folder)
    return folder


def latents(pipe: Any) -> torch.Tensor:
    model = wrap(pipe)
    with torch.no_grad():
        return model.velocity(torch.ones(1, 4, 8, 8), 0.5, model.encode(["a red fox"]))


def test_a_published_lora_is_applied_as_peft_does_and_taken_off(tmp_path: Path) -> None:
    from peft import PeftModel

    folder = peft_folder(tmp_path / "lora")
    pipe = small_flux()
    names = {name: id(module) for name, module in pipe.transformer.named_modules()}
    before = latents(pipe)
    with applied(wrap(pipe), ModelOptions(lora=str(folder))):
        inside = latents(pipe)
    with applied(wrap(pipe), ModelOptions(lora=f"{folder}:0")):
        torch.testing.assert_close(latents(pipe), before)
    assert torch.equal(latents(pipe), before)
    assert {name: id(module) for name, module in pipe.transformer.named_modules()} == names
    assert not hasattr(pipe.transformer, "peft_config")
    pipe.transformer = PeftModel.from_pretrained(pipe.transformer, folder).base_model.model
    torch.testing.assert_close(inside, latents(pipe))
    assert not torch.allclose(inside, before)


def test_the_users_own_lora_stays_active(tmp_path: Path) -> None:
    folder = peft_folder(tmp_path / "lora")
    pipe = small_flux()
    pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=["attn.to_v"], init_lora_weights=False), "mine")
    pipe.transformer.set_adapters(["mine"], [0.5])
    before = latents(pipe)
    with applied(wrap(pipe), ModelOptions(lora=str(folder))):
        both = latents(pipe)
        pipe.transformer.disable_adapters()
        neither = latents(pipe)
        pipe.transformer.enable_adapters()
    assert torch.equal(latents(pipe), before)
    assert list(pipe.transformer.peft_config) == ["mine"]
    assert not torch.allclose(both, before)
    assert not torch.allclose(both, neither)


def test_a_file_in_diffusers_format_is_applied(tmp_path: Path) -> None:
    pipe = small_flux()
    twin = with_lora(wrap(pipe), 2, seed=0)
    for parameter in trainable(denoiser(twin)):
        parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    from tuner.distill.swd.run import _write_lora

    _write_lora(twin, tmp_path)
    file = next(tmp_path.glob("*.safetensors"))
    for source in (tmp_path, file):
        with applied(wrap(pipe), ModelOptions(lora=str(source))):
            torch.testing.assert_close(latents(pipe), latents(twin.pipe))  # type: ignore[attr-defined]
    assert ADAPTER not in getattr(pipe.transformer, "peft_config", {})


def test_what_cannot_be_fetched_is_one_clear_line_and_leaves_the_pipe_alone(tmp_path: Path) -> None:
    pipe = small_flux()
    before = latents(pipe)
    for source in ("nobody/nothing", str(tmp_path)):
        with pytest.raises(UserError, match="cannot be loaded"), applied(wrap(pipe), ModelOptions(lora=source)):
            pass
    assert torch.equal(latents(pipe), before)


def test_a_preset_brings_its_lora_and_its_guidance_and_leaves_the_pipe_as_it_was(tmp_path: Path) -> None:
    pipe, folder = small_flux(), peft_folder(tmp_path / "lora")
    plain = Preset(
        name="p", model="m", source="s", height=32, width=32, schedule=wrap(pipe).blueprint.plain(2, (32, 32))
    )
    presets = [
        plain,
        plain.model_copy(update={"model_options": ModelOptions(guidance=50.0)}),
        plain.model_copy(update={"model_options": ModelOptions(lora=str(folder))}),
        plain,
    ]
    images = [generate(pipe, "a red fox", preset).images[0].tobytes() for preset in presets]
    assert images[0] == images[3]
    assert len(set(images)) == 3


def test_a_lora_in_peft_format_can_be_fused_when_the_model_is_loaded(tmp_path: Path) -> None:
    folder = peft_folder(tmp_path / "lora")
    pipe = small_flux()
    pipe.save_pretrained(tmp_path / "pipe")
    with applied(wrap(pipe), ModelOptions(lora=str(folder))):
        beside = latents(pipe)
    fused = blueprint(str(tmp_path / "pipe")).load("cpu", options=ModelOptions(lora=str(folder)))
    torch.testing.assert_close(latents(fused.pipe), beside)  # type: ignore[attr-defined]


RANK = 4
_ATTENTION = "transformer_blocks.0.attn"


def pair(key: str, inputs: int = 32, outputs: int = 32) -> dict[str, torch.Tensor]:
    """A low-rank pair that changes a layer's output much."""
    generator = torch.Generator().manual_seed(len(key))
    down, up = torch.randn(RANK, inputs, generator=generator), torch.randn(outputs, RANK, generator=generator)
    return {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}


def velocity_of(pipe: Any) -> torch.Tensor:
    model = wrap(pipe)
    with torch.no_grad():
        return model.velocity(torch.ones(1, 4, 8, 8), 0.5, model.encode(["a red fox"]))


def state_of(pipe: Any) -> dict[str, torch.Tensor]:
    networks = {name: one for name, one in pipe.components.items() if isinstance(one, torch.nn.Module)}
    return {
        f"{name}.{key}": value.clone() for name, one in networks.items() for key, value in one.state_dict().items()
    }


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (pair(f"{_ATTENTION}.to_q"), "reaches no layer"),
        (pair("transformer.no_such_block.to_q"), "not found in the base model"),
        (pair(f"unet.{_ATTENTION}.to_q"), "reaches no layer"),
        (
            pair(f"transformer.{_ATTENTION}.to_q") | {f"transformer.{_ATTENTION}.norm_q.weight": torch.ones(16)},
            "brings 1 weights beside its low-rank pairs",
        ),
        (pair(f"transformer.{_ATTENTION}.to_q") | {"transformer.proj_out.bias": torch.ones(16)}, "beside"),
        (pair("transformer.x_embedder", inputs=32), "expects 32 inputs of layer .*x_embedder.*has 16"),
        (pair("transformer.context_embedder", inputs=7), "expects 7 inputs"),
    ],
)
def test_a_lora_that_cannot_be_put_on_whole_and_taken_off_whole_is_refused(
    tmp_path: Path, weights: dict[str, torch.Tensor], message: str
) -> None:
    save_file(weights, tmp_path / "lora.safetensors")
    pipe = small_flux()
    before, drawn = state_of(pipe), velocity_of(pipe)
    with (
        pytest.raises(UserError, match=message),
        applied(wrap(pipe), ModelOptions(lora=str(tmp_path / "lora.safetensors"))),
    ):
        pass
    after = state_of(pipe)
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert torch.equal(velocity_of(pipe), drawn)


def test_layers_that_a_model_lacks_are_counted(tmp_path: Path) -> None:
    weights = pair(f"transformer.{_ATTENTION}.to_q") | pair("transformer.transformer_blocks.9.attn.to_q")
    save_file(weights, tmp_path / "lora.safetensors")
    pipe = small_flux()
    with (
        pytest.warns(UserWarning, match="1 of 2 layers are not in this model"),
        applied(wrap(pipe), ModelOptions(lora=str(tmp_path / "lora.safetensors"))),
    ):
        pass


@pytest.mark.parametrize("parts", ["network", "text", "both"])
def test_a_lora_draws_the_same_fused_and_beside_the_weights(tmp_path: Path, parts: str) -> None:
    pipe = small_flux()
    pipe.save_pretrained(tmp_path / "pipe")
    text = next(name for name, _ in pipe.text_encoder.named_modules() if name.endswith("q_proj"))
    weights = {} if parts == "text" else pair(f"transformer.{_ATTENTION}.to_q")
    weights |= {} if parts == "network" else pair(f"text_encoder.{text}", 24, 24)
    save_file(weights, tmp_path / "lora.safetensors")
    options = ModelOptions(lora=str(tmp_path / "lora.safetensors"))
    plain = velocity_of(pipe)
    with applied(wrap(pipe), options):
        beside = velocity_of(pipe)
    fused = velocity_of(blueprint(str(tmp_path / "pipe")).load("cpu", options=options).pipe)
    assert (beside - plain).abs().max() > 1e-3
    torch.testing.assert_close(fused, beside, atol=1e-5, rtol=0)
