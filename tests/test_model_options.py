from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline

from tests.small_pipelines import small_pipeline
from tests.studies.toy import toy_settings
from tuner import presets
from tuner.errors import UserError
from tuner.generation import generate
from tuner.models import Blueprint, ModelOptions, _loading, blueprint, wrap
from tuner.models._stored import quantization
from tuner.presets import Preset
from tuner.sampling import sample

SIZE = (32, 32)


@pytest.fixture(scope="module")
def sd3() -> Any:
    return small_pipeline("StableDiffusion3Pipeline").build()


@pytest.fixture(scope="module")
def flux_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "flux"
    small_pipeline("FluxPipeline").build().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def lora(flux_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from diffusers import FluxPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipe = FluxPipeline.from_pretrained(flux_folder)
    torch.manual_seed(1)
    pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    folder = tmp_path_factory.mktemp("lora")
    FluxPipeline.save_lora_weights(folder, get_peft_model_state_dict(pipe.transformer))
    return folder / "pytorch_lora_weights.safetensors"


def drawn(model: Any) -> torch.Tensor:
    return sample(model, model.blueprint.plain(2, SIZE), model.encode(["a red fox"]), [3], SIZE)


def test_guidance_and_negative_prompt_reach_the_images(sd3: Any) -> None:
    known = wrap(sd3).blueprint
    images = [
        drawn(known.with_options(options).wrap(sd3))
        for options in (
            ModelOptions(),
            ModelOptions(guidance=6.0),
            ModelOptions(negative_prompt="a blue circle"),
            ModelOptions(guidance=1.0),
        )
    ]
    for image in images[1:]:
        assert (image - images[0]).abs().max() > 1e-3


def test_guidance_that_is_off_costs_one_pass() -> None:
    medium = blueprint("sd3.5-medium")
    assert (medium.passes, medium.with_options(ModelOptions(guidance=1.0)).passes) == (2, 1)
    assert blueprint("flux").passes == 1


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("flux-schnell", ModelOptions(guidance=3.5), "takes no guidance scale, but got 3.5"),
        ("flux", ModelOptions(negative_prompt="blur"), "makes no pass with a negative prompt"),
        ("sd3.5-large", ModelOptions(negative_prompt="blur", guidance=1.0), "its scale turns it off"),
    ],
)
def test_options_without_effect_are_user_errors(model: str, options: ModelOptions, message: str) -> None:
    with pytest.raises(UserError, match=message):
        blueprint(model).with_options(options)


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_a_lora_is_loaded_with_its_weight_and_costs_nothing(flux_folder: Path, lora: Path, weight: float) -> None:
    from diffusers import FluxPipeline

    stock = FluxPipeline.from_pretrained(flux_folder)
    before = drawn(wrap(stock))
    stock.load_lora_weights(str(lora), adapter_name="it")
    stock.set_adapters(["it"], [weight])
    expected = drawn(wrap(stock))
    loaded = blueprint(str(flux_folder)).load("cpu", options=ModelOptions(lora=f"{lora}:{weight}"))
    assert (expected - before).abs().max() > 1e-2
    torch.testing.assert_close(drawn(loaded), expected, rtol=0, atol=1e-4)
    assert not any("lora" in name for name, _ in loaded.pipe.transformer.named_modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ModelOptions(lora="nowhere.safetensors"), "LoRA 'nowhere.safetensors' cannot be loaded"),
        (ModelOptions(quantize="nf4"), "needs bitsandbytes"),
        (ModelOptions(offload="model"), "to a GPU while they are used, and none is here; leave `--offload` out"),
        (ModelOptions(offload="model", device_map="balanced"), "exclude each other"),
        (ModelOptions(device_map="sideways"), "Device map 'sideways' does not work here"),
        (ModelOptions(attention="nativ"), "Unknown attention backend 'nativ'. Did you mean 'native'"),
        (ModelOptions(attention="xformers"), "'xformers' does not work here.*leave `--attention` out"),
    ],
)
def test_what_cannot_be_loaded_is_a_user_error(flux_folder: Path, options: ModelOptions, message: str) -> None:
    with pytest.raises(UserError, match=message):
        blueprint(str(flux_folder)).load("cpu", options=options)


def test_a_device_map_and_a_dtype_are_passed_on(flux_folder: Path) -> None:
    options = ModelOptions(device_map="cpu", dtype="bfloat16")
    model = blueprint(str(flux_folder)).load(options=options)
    assert model.pipe.transformer.dtype == torch.bfloat16
    assert drawn(model).isfinite().all()


def test_decoding_in_tiles_changes_what_no_tile_holds(flux_folder: Path) -> None:
    whole = blueprint(str(flux_folder)).load("cpu")
    tiled = blueprint(str(flux_folder)).load("cpu", options=ModelOptions(tiling=True))
    latents = whole.noise((64, 64), [1])
    expected = whole.decode(latents)[0]
    side, vae = latents.shape[-1], tiled.pipe.vae
    vae.tile_latent_min_size, vae.tile_sample_min_size = side, 64
    assert tiled.decode(latents)[0].tobytes() == expected.tobytes()
    vae.tile_latent_min_size, vae.tile_sample_min_size = side // 2, 32
    assert tiled.decode(latents)[0].size == expected.size
    assert tiled.decode(latents)[0].tobytes() != expected.tobytes()


def test_an_autoencoder_without_tiles_is_told() -> None:
    with pytest.raises(UserError, match="SimpleNamespace does not decode in tiles; leave `--tiling` out"):
        _loading._decode_in_tiles(SimpleNamespace(vae=SimpleNamespace()))


def test_the_attention_backend_is_the_networks_own(flux_folder: Path) -> None:
    stock = blueprint(str(flux_folder)).load("cpu")
    other = blueprint(str(flux_folder)).load("cpu", options=ModelOptions(attention="_native_math"))
    torch.testing.assert_close(drawn(other), drawn(stock), rtol=0, atol=1e-4)
    processors = other.pipe.transformer.attn_processors.values()
    assert {processor._attention_backend.value for processor in processors} == {"_native_math"}


def test_weights_of_another_model_are_refused(flux_folder: Path) -> None:
    mistaken: Blueprint = replace(blueprint("flux"), source=str(flux_folder))
    with pytest.raises(
        UserError, match=r"is not the 'flux' that is known here: its transformer has in_channels=16"
    ):
        mistaken.load("cpu")


def test_a_preset_takes_what_makes_the_image_and_not_the_machine() -> None:
    options = ModelOptions(guidance=5.0, lora="me/mine", dtype="float16", quantize="nf4", offload="model")
    assert options.of_presets() == ModelOptions(guidance=5.0, lora="me/mine")
    machine = ModelOptions(dtype="float16", device_map="balanced", tiling=True, free_text_encoders=True)
    assert machine.of_presets() is None
    assert ModelOptions(lora="me/mine").lora_and_weight() == ("me/mine", 1.0)
    assert ModelOptions(lora="me/mine:-0.5").lora_and_weight() == ("me/mine", -0.5)


@pytest.fixture
def preset(sd3: Any) -> Preset:
    schedule = wrap(sd3).blueprint.plain(2, SIZE)
    return Preset(
        name="small",
        model="small",
        source="a test",
        height=32,
        width=32,
        schedule=schedule,
        model_options=ModelOptions(guidance=6.0, negative_prompt="a blue circle"),
    )


def test_a_preset_keeps_the_guidance_that_it_was_found_with(sd3: Any, preset: Preset, tmp_path: Path) -> None:
    again = presets.load(presets.save(preset, tmp_path / "small.yaml"))
    assert again == preset
    by_preset = generate(sd3, "a red fox", again).images[0]
    by_hand = generate(sd3, "a red fox", again.schedule, 0, *SIZE, options=preset.model_options).images[0]
    plain = generate(sd3, "a red fox", again.schedule, 0, *SIZE).images[0]
    assert by_preset.tobytes() == by_hand.tobytes()
    assert by_preset.tobytes() != plain.tobytes()


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_the_vae_is_not_quantised(monkeypatch: pytest.MonkeyPatch, quantize: str) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "bitsandbytes" or found(name))
    with pytest.raises(UserError, match="needs a GPU; leave it out, or take torchao-int8"):
        quantization(quantize, "bfloat16", FluxPipeline)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for library in ("diffusers", "transformers"):  # whose configurations ask for the package
        monkeypatch.setattr(f"{library}.BitsAndBytesConfig", dict)
    quantised = quantization(quantize, "bfloat16", FluxPipeline)
    assert set(quantised) == {"transformer", "text_encoder", "text_encoder_2"}


def test_text_encoders_are_freed_after_encoding() -> None:
    pipe = small_pipeline("StableDiffusion3Pipeline").build()
    schedule = wrap(pipe).blueprint.plain(2, SIZE)
    kept = generate(pipe, "a red fox", schedule, height=32, width=32).images[0]
    freed = generate(pipe, "a red fox", schedule, height=32, width=32, free_text_encoders=True).images[0]
    assert kept.tobytes() == freed.tobytes()
    assert pipe.text_encoder is pipe.text_encoder_2 is pipe.text_encoder_3 is None


def test_options_that_decide_the_images_are_part_of_a_studys_identity(
    sd3: Any, lora: Path, tmp_path: Path
) -> None:
    from studies.plan.plan import make_plan
    from studies.work.evaluator import Evaluator

    sd3.save_pretrained(tmp_path / "sd3")
    base = toy_settings(tmp_path, model=str(tmp_path / "sd3"), budget="50%", size=SIZE)

    def identity(**options: Any) -> dict[str, Any]:
        return make_plan(base.model_copy(update={"options": ModelOptions(**options)})).identity

    evaluator = Evaluator.load(base.model, [], "cpu", ModelOptions(guidance=6.0))
    assert evaluator._model.blueprint.guidance == 6
    plain = identity()
    assert "options" not in plain
    assert identity(offload="model", device_map="balanced") == plain
    changed: list[dict[str, Any]] = [{"guidance": 5.0}, {"negative_prompt": "blur"}, {"dtype": "float16"}]
    changed += [{"quantize": "nf4"}, {"attention": "native"}, {"compile": True}, {"tiling": True}]
    for options in changed:
        assert identity(**options) != plain
    with_lora = identity(lora=f"{lora}:0.5")
    assert with_lora["options"]["lora"] == f"{lora}:0.5"
    assert len(with_lora["options"]["lora_hash"]) == 16
