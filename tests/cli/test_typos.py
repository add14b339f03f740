from __future__ import annotations

import subprocess
import sys

import pytest

_HEAVY = ("diffusers", "mlflow", "ray", "torch", "transformers")
_CODE = f"""
import sys
from tuner.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print(sorted(set({_HEAVY!r}) & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("search --model tiny --budget 3y", "Budget '3y' is not a budget"),
        ("search --model tiny --budget 1.5nfe", "must be a whole number of network forward passes"),
        ("search --model tniy --budget 3x", "Unknown model 'tniy'. Did you mean 'tiny'?"),
        ("search --model tiny --budget 3x --space bogus", "Unknown search space 'bogus'"),
        ("search --model tiny --budget 3x --objectives clp", "Unknown objective 'clp'. Did you mean 'clip'?"),
        ("search --model tiny --budget 3x --pick kne", "Pick 'kne' is not one of"),
        ("search --model tiny --budget 3x --pick best:psnr", "Pick 'best:psnr' is not one of"),
        ("search --model tiny --budget 3x --study a/b", "Study name 'a/b' cannot name a folder"),
        ("search --model tiny --budget 3x --for comfy", "Unknown format 'comfy'"),
        ("search --model tiny --budget 3x --dry-run --space bogus", "Unknown search space 'bogus'"),
        ("flops --model tniy", "Unknown model 'tniy'"),
        ("flops --model tiny --preset bogus", "Unknown preset 'bogus'"),
        ("models tniy --cost", "Unknown model 'tniy'"),
        ("presets bogus", "Unknown preset 'bogus'"),
    ],
)
def test_a_typo_is_refused_before_anything_heavy_is_imported(arguments: str, message: str) -> None:
    done = subprocess.run([sys.executable, "-c", _CODE, *arguments.split()], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr.count("\n")) == (2, "[]", 1)
    assert message in done.stderr
