from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest

from tests.small_pipelines import small_pipeline
from tuner import counts, memory
from tuner.errors import UserError
from tuner.feature_cache import FeatureCache, PyramidAttentionBroadcast, TaylorSeerCache
from tuner.flops import count
from tuner.models import Blueprint, Size, available, blueprint
from tuner.models.flux import FluxBlueprint

TINY = blueprint("tiny")
_SHIPPED: dict[str, Any] = json.loads(counts.SHIPPED.read_text())["counts"]


class Counter:
    """Counts how often it counts."""

    def __init__(self, result: float | UserError = 0.25):
        self.calls, self.result = 0, result

    def __call__(self) -> float:
        self.calls += 1
        if isinstance(self.result, UserError):
            raise self.result
        return self.result


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNER_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


NOT_SHIPPED = replace(TINY, text_tokens=TINY.text_tokens + 1)
SIZE = (48, 96)


def test_what_was_counted_once_is_read(home: Path) -> None:
    counter = Counter()
    assert [counts.once(NOT_SHIPPED, SIZE, None, counter) for _ in range(2)] == [0.25, 0.25]
    assert counter.calls == 1
    assert [json.loads(file.read_text()) for file in home.rglob("*.*")] == [{"count": 0.25}]


def test_a_refusal_is_kept_with_its_message(home: Path) -> None:
    counter = Counter(UserError("Cache 'pab' does not work here; leave it out."))
    for _ in range(2):
        with pytest.raises(UserError, match="does not work here"):
            counts.once(NOT_SHIPPED, SIZE, PyramidAttentionBroadcast(kind="pab"), counter)
    assert counter.calls == 1


def test_an_error_without_a_cache_is_not_kept(home: Path) -> None:
    counter = Counter(UserError("no network"))
    for _ in range(2):
        with pytest.raises(UserError):
            counts.once(NOT_SHIPPED, SIZE, None, counter)
    assert counter.calls == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"count": null}', '{"count": -1.0}', '{"count": NaN}', "\x00"])
def test_a_corrupt_file_is_counted_anew_and_replaced(home: Path, text: str) -> None:
    counts.once(NOT_SHIPPED, SIZE, None, Counter(0.5))
    (file,) = home.rglob("*.json")
    file.write_text(text)
    counter = Counter(0.25)
    assert [counts.once(NOT_SHIPPED, SIZE, None, counter) for _ in range(2)] == [0.25, 0.25]
    assert counter.calls == 1


def test_a_folder_that_cannot_be_written_only_costs_a_count(home: Path) -> None:
    home.write_text("a file where the folder would be")
    counter = Counter()
    assert [counts.once(NOT_SHIPPED, SIZE, None, counter) for _ in range(2)] == [0.25, 0.25]
    assert counter.calls == 2


def test_other_versions_count_for_themselves(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts.once(NOT_SHIPPED, SIZE, None, Counter(0.5))
    monkeypatch.setattr(counts, "_environment", lambda: "another torch")
    assert counts.once(NOT_SHIPPED, SIZE, None, Counter(0.25)) == 0.25


def test_the_counts_of_another_diffusers_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    counts._shipped.cache_clear()
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.1.0")
    try:
        assert counts._shipped() == {}
    finally:
        counts._shipped.cache_clear()


def test_a_model_of_another_package_is_always_counted(home: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Foreign(FluxBlueprint):
        pass

    foreign = Foreign(**{field.name: getattr(TINY, field.name) for field in fields(TINY)})
    counter = Counter()
    assert [counts.once(foreign, SIZE, None, counter) for _ in range(2)] == [0.25, 0.25]
    assert counter.calls == 2
    assert not home.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"text_tokens": 7},
        {"guidance": 1.0},
        {"transformer": {**TINY.transformer, "num_layers": 9}},
        {"vae_factor": 64},
        {"frames": 5},
    ],
)
def test_what_decides_a_count_is_in_its_key(change: dict[str, Any]) -> None:
    assert counts.key_of(replace(TINY, **change), SIZE, None) != counts.key_of(TINY, SIZE, None)


def test_size_cache_and_family_are_in_the_key() -> None:
    taylor: FeatureCache = TaylorSeerCache(kind="taylorseer")
    tiny_cfg = replace(blueprint("tiny-cfg"), transformer=TINY.transformer, guidance=TINY.guidance)
    keys = [
        counts.key_of(TINY, SIZE, None),
        counts.key_of(TINY, SIZE[::-1], None),
        counts.key_of(TINY, SIZE, taylor),
        counts.key_of(TINY, SIZE, TaylorSeerCache(kind="taylorseer", lite=True)),
        counts.key_of(tiny_cfg, SIZE, None),
    ]
    assert len(set(keys)) == len(keys)


def test_a_copy_of_a_models_folder_is_priced_as_the_model() -> None:
    copy = replace(TINY, name="mine", source="/somewhere/else", license="mine", scorers=None)
    assert counts.key_of(copy, SIZE, None) == counts.key_of(TINY, SIZE, None)


def test_the_shipped_counts_are_small() -> None:
    assert counts.SHIPPED.stat().st_size < 100_000


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("tiny", (64, 64)),
        ("tiny", (32, 32)),
        ("tiny-cfg", (64, 64)),
        ("flux", (1024, 1024)),
        ("sdxl", (1024, 1024)),
        ("sana", (1024, 1024)),
    ],
)
def test_a_shipped_count_is_what_counting_gives(name: str, size: Size) -> None:
    known = blueprint(name)
    assert _SHIPPED[counts.key_of(known, size, None)] == count(known, size)


def test_a_shipped_count_with_a_feature_cache_is_what_counting_gives() -> None:
    ((probe, _),) = TaylorSeerCache(kind="taylorseer").shortened([0.5] * 8)
    assert _SHIPPED[counts.key_of(TINY, TINY.size, probe)] == count(TINY, TINY.size, probe)


@pytest.mark.parametrize("name", ["tiny", "sana"])
def test_shipped_memory_is_what_counting_gives(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = blueprint(name)
    shipped = memory.weights(known), memory.working(known, known.size, "bfloat16")
    monkeypatch.setattr(counts, "_shipped", dict)
    assert (memory.weights(known), memory.working(known, known.size, "bfloat16")) == shipped


def test_every_model_ships_its_default_size() -> None:
    def shipped(known: Blueprint) -> bool:
        return counts.key_of(known, known.size, None) in _SHIPPED

    def remembered(known: Blueprint) -> bool:
        kinds = ("weights", "working float32", "working bfloat16")
        return all(counts.hashed(memory.key(kind, known, known.size)) in _SHIPPED for kind in kinds)

    missing = [name for name in available() if not (shipped(blueprint(name)) and remembered(blueprint(name)))]
    assert missing == [], "run python -m benchmarks.shipped_counts"


def test_a_known_price_imports_neither_torch_nor_diffusers(home: Path) -> None:
    code = (
        "import sys\n"
        "from tuner.cli.main import main\n"
        "try: main(['flops', '--model', 'flux', '--json'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["nfe"] == 50
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("arguments", [["models", "--memory"], ["search", "--model", "flux", "--budget", "3x"]])
def test_known_memory_is_told_without_torch(home: Path, arguments: list[str]) -> None:
    """Torch and diffusers take seconds to import."""
    dry = ["--dry-run", "--workers", "1"] if arguments[0] == "search" else []
    code = (
        "import sys\n"
        "from tuner.cli.main import main\n"
        f"try: main({[*arguments, *dry, '--json']!r})\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)
    assert done.stderr.strip().endswith("[]")
    assert not home.exists()


def test_a_small_pipeline_is_counted_and_kept(home: Path) -> None:
    from tuner.flops import _count, tflops_per_pass
    from tuner.models import wrap

    _count.cache_clear()
    known = wrap(small_pipeline("FluxPipeline").build()).blueprint
    assert tflops_per_pass(known, (32, 32)) == count(known, (32, 32))
    (file,) = home.rglob("*.json")
    assert json.loads(file.read_text()) == {"count": count(known, (32, 32))}
