"""Two Ray nodes on this machine, started in different folders, with GPUs that Ray counts and nobody has."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import studies.workers.cargo as cargo_module
from studies import SearchSettings, search
from tests.studies.test_search import comparable
from tuner.errors import UserError
from tuner.models import ModelOptions
from tuner.models import blueprint as tuner_blueprint

pytestmark = pytest.mark.servers

_SECRET = "hf_" + "planted" * 3
_OBJECTIVE = """
import os
from cluster_helper import brightness


def fn(images, prompts):
    assert os.environ["HF_TOKEN"].endswith("planted")  # as the driver has it
    return brightness(images)
"""
_HELPER = """
import numpy as np


def brightness(images):
    return [float(np.asarray(image, dtype=float).mean()) for image in images]
"""


def small_lora(model: Path, path: Path) -> None:
    """Writes a LoRA that changes what the model draws."""
    import torch
    from diffusers import FluxTransformer2DModel
    from peft import LoraConfig, get_peft_model_state_dict
    from safetensors.torch import save_file

    network = FluxTransformer2DModel.from_pretrained(model / "transformer")
    network.add_adapter(LoraConfig(r=1, target_modules=["to_q"], init_lora_weights=False))
    torch.manual_seed(0)
    state = {
        f"transformer.{name}": 0.2 * torch.randn_like(value)
        for name, value in get_peft_model_state_dict(network).items()
    }
    save_file(state, path)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The driver's folder; no node runs in it."""
    folder = tmp_path_factory.mktemp("driver")
    shutil.copytree(tuner_blueprint("tiny").source, folder / "model")
    small_lora(folder / "model", folder / "own.safetensors")
    (folder / "cluster_score.py").write_text(_OBJECTIVE)
    (folder / "cluster_helper.py").write_text(_HELPER)
    (folder / "objectives.py").write_text("raise RuntimeError('taken for the package of tuner')")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HF_TOKEN", _SECRET)
        yield folder
    for name in ("cluster_score", "cluster_helper"):
        sys.modules.pop(name, None)


class Nodes:
    """Two nodes of one core and one GPU; the first is the head."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch):
        from ray.cluster_utils import Cluster

        with patch.context() as there:
            there.setenv("RAY_USAGE_STATS_ENABLED", "0")
            there.delenv("HF_TOKEN")  # nodes know nothing of the driver's
            one = {"num_cpus": 1, "num_gpus": 1}
            for name in ("first", "second"):
                (folder / name).mkdir()
            there.chdir(folder / "first")
            self.cluster: Any = Cluster(initialize_head=True, head_node_args=one | {"include_dashboard": False})
            there.chdir(folder / "second")
            self._second = self.cluster.add_node(**one)

    def lose_one(self) -> None:
        self.cluster.remove_node(self._second, allow_graceful=False)


@pytest.fixture(scope="module")
def nodes(driver: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        nodes = Nodes(tmp_path_factory.mktemp("nodes"), patch)
    yield nodes
    nodes.cluster.shutdown()


def settings(out: Path, **changes: Any) -> SearchSettings:
    values: dict[str, Any] = {
        "model": "./model",
        "size": (32, 32),
        "budget": "6x",
        "objectives": ("cluster_score:fn",),
        "options": ModelOptions(lora="own.safetensors:0.5"),
        "trials": 2,
        "search_prompts": 2,
        "held_out_prompts": 2,
        "chunk": 1,
        "out": str(out),
        "reuse": False,
    }
    return SearchSettings(**(values | changes))


def test_a_node_that_lacks_something_is_named_before_work_starts(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = tmp_path / "scorer"
    scorer.mkdir()
    (scorer / "weights").write_bytes(bytes(9))
    monkeypatch.setattr(cargo_module, "MOST_SENT", 8)
    from studies.workers.cargo import cargo_of
    from studies.workers.ray_executor import RayExecutor
    from tests.studies.toy import load_toy

    cargo = cargo_of("tiny", [f"clip:{scorer}"], [])
    shutil.rmtree(scorer)
    with pytest.raises(UserError) as caught:
        RayExecutor(load_toy, address=nodes.cluster.address, cargo=cargo)
    assert str(caught.value).count("cannot work") == 2
    assert repr(str(scorer)) in str(caught.value)


def test_a_study_that_loses_a_node_ends_as_if_nothing_had_happened(
    nodes: Nodes, driver: Path, tmp_path: Path
) -> None:
    lost: list[int] = []

    def lose_a_node(progress: Any) -> None:
        if progress.trials_done >= 2 and not lost:
            lost.append(progress.trials_done)
            nodes.lose_one()

    with warnings.catch_warnings(record=True):
        cluster = settings(tmp_path / "cluster", ray_address=nodes.cluster.address, gpus_per_worker=1)
        found = search(cluster, on_progress=lose_a_node)
    assert lost
    undisturbed = search(settings(tmp_path / "here", workers=0, gpus_per_worker=0))
    assert comparable(found) == comparable(undisturbed)
    assert found.front == undisturbed.front
    written = [path for path in Path("/tmp/ray/session_latest/").resolve().rglob("*") if path.is_file()]
    assert not [path for path in written if _SECRET.encode() in path.read_bytes()]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and _SECRET.encode() in path.read_bytes()]
