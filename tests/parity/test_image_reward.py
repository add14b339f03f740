"""Our ImageReward against the published package, in an environment of its own: ``pytest -m parity``.

The package does not run under the transformers that this project uses, so it is installed, with what it needs in
the versions of its time, into a folder of the user's cache, and torch is taken from here. Both sides have the same
random weights in the published layout, the towers' blocks of the published sizes but fewer; nothing is downloaded
but the packages.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import objectives
from objectives import Objective
from objectives.base import CutPromptWarning
from objectives.image_reward import PROMPT_TOKENS

pytestmark = pytest.mark.parity

# Installed without their dependencies; torch, torchvision, Pillow and the rest are this environment's.
PINS = (
    "image-reward==1.5",
    "transformers==4.40.2",
    "tokenizers==0.19.1",
    "huggingface-hub==0.36.0",
    "timm==0.6.13",
    "clip-anytorch==2.6.0",
    "fairscale==0.4.13",
    "setuptools==80.9.0",
)
SUBJECTS = ("a red fox", "an astronaut riding a horse", "the quick brown fox, jumps!", "Snow.", "un café à Paris")
LONG = "a very detailed painting of a red fox that sits on the snow under a tree in the light of the moon, " * 3
MODES = ("RGB", "P", "RGBA", "L", "LA", "1", "CMYK")
SIZES = ((224, 224), (300, 200), (200, 300), (640, 90), (64, 64), (225, 224), (31, 517))
WORDS = (
    "a",
    "the",
    "red",
    "fox",
    "very",
    "painting",
    "of",
    "on",
    "snow",
    "in",
    "light",
    "jump",
    "##s",
    "un",
    "cafe",
)
MED_CONFIG = {
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 3,
    "pad_token_id": 0,
    "add_type_embeddings": False,
    "vocab_size": 30524,
    "encoder_width": 768,
    "add_cross_attention": True,
}


@pytest.fixture(scope="module")
def old_python() -> Path:
    """An environment with the package, made once and kept in the cache."""
    recipe = "\n".join((*PINS, sys.version, sys.prefix))
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tuner-parity"
    folder = cache / hashlib.sha256(recipe.encode()).hexdigest()[:12]
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        uv = shutil.which("uv")
        assert uv, "this test makes an environment with uv: pip install uv"
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--python", python, *PINS], check=True)
        # What a .pth file names comes after the environment's own packages, so the old ones win.
        (own,) = folder.glob("lib/python*/site-packages")
        (own / "here.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        (folder / "complete").touch()
    return python


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    special = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    known = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *WORDS])
    # BERT's own vocabulary has 30522 entries; [DEC] and [ENC], which are added, come right behind.
    vocabulary = [*known, *(f"word{i}" for i in range(30522 - len(known)))]
    (folder / "bert-base-uncased").mkdir()
    (folder / "bert-base-uncased" / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    shutil.copy(folder / "bert-base-uncased" / "vocab.txt", folder)
    (folder / "med_config.json").write_text(json.dumps(MED_CONFIG))
    (folder / "pairs.json").write_text(json.dumps(pairs(folder)))
    return folder


def pairs(folder: Path) -> list[tuple[str, str]]:
    """Writes images of every mode and many shapes, and gives each a short prompt or one that is cut."""
    rng = np.random.default_rng(0)
    found = []
    for number, mode in enumerate(MODES * 3):
        width, height = SIZES[(number + number // len(MODES)) % len(SIZES)]
        pixels = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)).resize((width, height))
        image = pixels.convert(mode)
        if mode in ("RGBA", "LA"):
            image.putalpha(Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8)))
        options = {"transparency": 3} if mode == "P" and number % 2 else {}
        file = f"{number}-{mode}.{'tiff' if mode == 'CMYK' else 'png'}"
        image.save(folder / file, **options)
        prompt = SUBJECTS[number % len(SUBJECTS)]
        found.append((f"{prompt} {LONG}" if number % 3 == 2 else prompt, file))
    return found


def test_rewards_are_those_of_the_published_package(old_python: Path, folder: Path) -> None:
    script = Path(__file__).with_name("image_reward_reference.py")
    subprocess.run([old_python, "-I", "-W", "ignore", script, folder], check=True, cwd=folder)
    published = json.loads((folder / "scores.json").read_text())

    objective = objectives.load(f"image_reward:{folder}")
    assert isinstance(objective, Objective)
    prompts, files = zip(*json.loads((folder / "pairs.json").read_text()), strict=True)
    images = [Image.open(folder / file) for file in files]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CutPromptWarning)
        ours = objective.score(images, list(prompts))

    assert len(published) >= 20
    assert ours == pytest.approx(published, rel=0, abs=1e-4)
    # The comparison could fail: the pairs differ by far more than it lets pass, also those of one prompt.
    assert np.ptp(published) > 0.05
    assert len({round(score, 3) for score in published}) > len(published) // 2
    assert {image.mode for image in images} == set(MODES)
    assert any(f"{PROMPT_TOKENS} tokens" in str(warning.message) for warning in caught)
