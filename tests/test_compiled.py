from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tuner.models import ModelOptions, blueprint, wrap
from tuner.sampling import sample


def test_a_compiled_model_samples_what_the_plain_one_does(flux_pipe: Any, tmp_path: Path) -> None:
    flux_pipe.save_pretrained(tmp_path)
    plain = wrap(flux_pipe)
    with torch.compiler.set_stance("force_eager"):  # compiling takes a minute
        compiled = blueprint(str(tmp_path)).load("cpu", options=ModelOptions(compile=True))
        latents = [
            sample(model, plain.blueprint.plain(2, (32, 32)), plain.encode(["a red fox"]), [1], (32, 32))
            for model in (plain, compiled)
        ]
    torch.testing.assert_close(latents[0], latents[1])
    blocks = compiled.pipe.transformer.transformer_blocks, flux_pipe.transformer.transformer_blocks
    assert [block[0]._compiled_call_impl is not None for block in blocks] == [True, False]
