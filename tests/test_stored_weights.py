"""Denoisers in GGUF and safetensors files, and weights that torchao quantises."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest
import safetensors.torch
import torch

import tuner.memory
from tests.small_flux import small_flux
from tests.small_pipelines import small_pipeline
from tests.studies.toy import toy_settings
from tuner.errors import UserError
from tuner.memory import network_of
from tuner.models import FlowModel, ModelOptions, blueprint
from tuner.sampling import sample

SIZE = (32, 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flux") / "pipe"
    small_flux().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The denoiser of another pipeline of the same sizes."""
    return small_flux(seed=1).transformer


@pytest.fixture(scope="module")
def packed(other: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The other denoiser, its matrices in eight bits, as GGUF."""
    path = tmp_path_factory.mktemp("gguf") / "other.gguf"
    kind = gguf.GGMLQuantizationType.Q8_0
    writer = gguf.GGUFWriter(str(path), "flux")
    for name, values in other.state_dict().items():
        array = values.float().numpy()
        if array.ndim == 2 and array.shape[1] % gguf.GGML_QUANT_SIZES[kind][0] == 0:
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def stored(other: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "other.safetensors"
    safetensors.torch.save_file(other.state_dict(), path)
    return path


def drawn(model: FlowModel) -> torch.Tensor:
    return sample(model, model.blueprint.plain(2, SIZE), model.encode(["a red fox"]), [3], SIZE)


def loaded(folder: Path, **options: Any) -> Any:
    return blueprint(str(folder)).load("cpu", options=ModelOptions(**options))


def test_a_file_replaces_the_denoiser(folder: Path, stored: Path, other: Any) -> None:
    expected = loaded(folder)
    plain = drawn(expected)
    expected.pipe.transformer = other
    by_file = drawn(loaded(folder, transformer=str(stored)))
    assert by_file.allclose(drawn(expected), atol=1e-5)  # weights that lie elsewhere in memory round otherwise
    assert not by_file.allclose(plain, atol=1e-2)


@pytest.mark.parametrize("freed", [None, True])
def test_packed_weights_draw_nearly_the_same(folder: Path, stored: Path, packed: Path, freed: bool | None) -> None:
    whole = drawn(loaded(folder, transformer=str(stored)))
    model = loaded(folder, transformer=str(packed), free_text_encoders=freed)
    text = model.encode(["a red fox"])
    if freed:
        model.free_text_encoders()
    close = sample(model, model.blueprint.plain(2, SIZE), text, [3], SIZE)
    assert 0 < (close - whole).std() < 0.02 * whole.std()


def test_what_is_left_out_is_not_quantised(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[str]] = []
    both = {"transformer": 8, "text_encoder": 8}
    monkeypatch.setattr("tuner.models._loading.quantization", lambda *_: both)
    monkeypatch.setattr(
        "diffusers.PipelineQuantizationConfig", lambda quant_mapping: asked.append(set(quant_mapping))
    )
    model = loaded(folder, quantize="torchao-int8", free_text_encoders=True)
    model.encode(["a red fox"])
    model.free_text_encoders()
    assert asked == [{"text_encoder"}, {"transformer"}]


def test_a_lora_stays_beside_packed_weights(folder: Path, packed: Path, tmp_path: Path) -> None:
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipe = small_flux()
    pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    pipe.save_lora_weights(tmp_path, transformer_lora_layers=get_peft_model_state_dict(pipe.transformer))
    lora = str(tmp_path / "pytorch_lora_weights.safetensors")
    plain = drawn(loaded(folder, transformer=str(packed)))
    assert drawn(loaded(folder, transformer=str(packed), lora=f"{lora}:0")).allclose(plain, atol=1e-5)
    assert not drawn(loaded(folder, transformer=str(packed), lora=lora)).allclose(plain, atol=1e-2)


def test_packed_weights_take_the_memory_of_their_file(folder: Path, packed: Path) -> None:
    known = blueprint(str(folder))
    sizes = tuner.memory.weights(known)
    with_file = sizes.loaded(ModelOptions(transformer=str(packed)))
    assert with_file.denoising("bfloat16") == packed.stat().st_size
    rest = sizes.encoding("bfloat16") + sizes.decoding("bfloat16")
    assert with_file.at_once("bfloat16") == packed.stat().st_size + rest
    network = network_of(loaded(folder).pipe.transformer)
    assert sizes.loaded(ModelOptions()).denoising("bfloat16") == network.bytes("bfloat16")


def test_a_study_knows_the_file_by_its_content(folder: Path, stored: Path, packed: Path, tmp_path: Path) -> None:
    from studies.plan.plan import make_plan

    def identity(file: Path | None) -> dict[str, Any]:
        options = ModelOptions(transformer=str(file) if file else None)
        settings = toy_settings(tmp_path, model=str(folder), budget="50%", size=SIZE, options=options)
        return make_plan(settings).identity

    moved = tmp_path / "moved.gguf"
    moved.write_bytes(packed.read_bytes())
    assert identity(packed) == identity(moved)
    assert len({str(identity(file)) for file in (packed, stored, None)}) == 3
    assert ModelOptions(transformer=str(packed)).of_presets() is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.ckpt", b"", r"ends in \.gguf or \.safetensors, but got"),
        ("folder.gguf", "folder", "is no file; name the"),
        ("gone.gguf", None, "is not here; fetch it with `hf download REPOSITORY FILE`"),
        ("a.gguf", b"GGUF", "could not be read as the transformer of"),
        ("a.safetensors", b"{", "could not be read as the transformer of"),
    ],
)
def test_what_is_no_file_of_weights_is_told(
    folder: Path, tmp_path: Path, name: str, content: bytes | str | None, message: str
) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=message):
        loaded(folder, transformer=str(tmp_path / name))


def test_a_file_is_found_from_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.gguf").touch()
    assert ModelOptions(transformer="~/a.gguf").transformer_file() == tmp_path / "a.gguf"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("transformer_blocks.7.a", r"no place for 1 of its weights, e\.g\. 'transformer_blocks\.7\.a'"),
        ("transformer_blocks.0.scale_weight", r"has scaled weights \('transformer_blocks\.0\.scale_weight'\)"),
    ],
)
def test_weights_that_would_be_dropped_are_told(more: str, message: str, tmp_path: Path) -> None:
    pipe = small_pipeline("QwenImagePipeline").build()
    pipe.save_pretrained(tmp_path / "pipe")
    file = tmp_path / "larger.safetensors"
    safetensors.torch.save_file({**pipe.transformer.state_dict(), more: torch.ones(1)}, file)
    with pytest.raises(UserError, match=message):
        loaded(tmp_path / "pipe", transformer=str(file))


def test_a_model_that_is_gone_is_not_the_fault_of_the_file(folder: Path, packed: Path, tmp_path: Path) -> None:
    known = blueprint(str(shutil.copytree(folder, tmp_path / "pipe")))
    shutil.rmtree(tmp_path / "pipe")
    with pytest.raises(UserError, match="it is neither a local pipeline folder nor reachable"):
        known.load("cpu", options=ModelOptions(transformer=str(packed)))


@pytest.mark.parametrize("pipeline_class", ["FluxPipeline", "WanPipeline"])
def test_a_file_that_lacks_weights_is_told(pipeline_class: str, tmp_path: Path) -> None:
    pipe = small_pipeline(pipeline_class).build()
    pipe.save_pretrained(tmp_path / "pipe")
    some = dict(list(pipe.transformer.state_dict().items())[:-1])
    safetensors.torch.save_file(some, tmp_path / "some.safetensors")
    with pytest.raises(UserError, match=r"could not be read as the transformer of .*; give a whole file of"):
        loaded(tmp_path / "pipe", transformer=str(tmp_path / "some.safetensors"))


@pytest.mark.parametrize("name", ["cogvideox", "hunyuan-video-1.5", "pixart-sigma"])
def test_a_network_that_diffusers_reads_from_no_file_is_told(name: str, stored: Path) -> None:
    with pytest.raises(UserError, match=r"diffusers reads no \w+ from one file; leave `--transformer` out"):
        blueprint(name).load("cpu", options=ModelOptions(transformer=str(stored)))


def test_a_model_with_two_denoisers_takes_no_file(stored: Path) -> None:
    known = blueprint("wan2.2")
    assert len(known.meta_networks()) == 2
    with pytest.raises(UserError, match="has two denoisers"):
        known.load("cpu", options=ModelOptions(transformer=str(stored)))
