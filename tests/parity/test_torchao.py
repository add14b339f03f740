"""Weights that torchao quantises, in a process that has it: ``pytest -m parity``.

It is installed apart from the tests' environment, because other packages change what they do where it is there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_flux import small_flux

pytestmark = pytest.mark.parity

ROOT = Path(__file__).parents[2]
PIN = "torchao==0.18.0"
DRAW = """
import json, sys
from tuner.models import ModelOptions, blueprint
from tuner.sampling import sample

def drawn(quantize):
    model = blueprint(sys.argv[1]).load("cpu", options=ModelOptions(quantize=quantize))
    latents = sample(model, model.blueprint.plain(2, (32, 32)), model.encode(["a red fox"]), [3], (32, 32))
    pipe = model.pipe
    text = pipe.text_encoder_2.encoder.block[0].layer[0].SelfAttention
    layers = pipe.transformer.transformer_blocks[0].attn.to_q, text.q
    kinds = [type(layer.weight).__name__ for layer in layers] + [type(next(pipe.vae.parameters())).__name__]
    return latents, kinds

plain, _ = drawn(None)
told = {}
for quantize in ("torchao-int8", "torchao-fp8"):
    latents, kinds = drawn(quantize)
    told[quantize] = {"kinds": kinds, "error": float((latents - plain).std() / plain.std())}
print(json.dumps(told))
"""


def test_torchao_quantises_denoiser_and_text_but_not_the_vae(tmp_path: Path) -> None:
    small_flux().save_pretrained(tmp_path / "pipe")
    uv = shutil.which("uv")
    assert uv, "this test installs a package with uv: pip install uv"
    target = ["--target", tmp_path / "packages", "--python", sys.executable]
    subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", *target, PIN], check=True)
    (tmp_path / "draw.py").write_text(DRAW)
    paths = os.pathsep.join([str(ROOT), str(tmp_path / "packages")])
    command = [sys.executable, "draw.py", "pipe"]
    environment = os.environ | {"PYTHONPATH": paths}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    told = json.loads(ran.stdout)
    assert told["torchao-int8"]["kinds"] == ["Int8Tensor", "Int8Tensor", "Parameter"]
    assert told["torchao-fp8"]["kinds"] == ["Float8Tensor", "Float8Tensor", "Parameter"]
    for one in told.values():
        assert 0 < one["error"] < 0.05
