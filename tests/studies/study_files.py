"""Writes a finished study's folder from a made-up result, with scores and images that agree with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from studies.records.results import StudyResult
from studies.records.study_folder import StudyFolder
from tuner.schedule import Schedule, Stage

BASELINE = Schedule(stages=(Stage(steps=50, shift=3.0),))
BUDGET = "3x"


def write_study(
    path: Path,
    result: StudyResult,
    directions: dict[str, str],
    prompts: Sequence[str],
    held_out: Sequence[str] = (),
    images: int = 0,
    side: int = 64,
) -> StudyFolder:
    """Writes a study's folder.

    Args:
        path: The folder.
        result: Its outcome; scores by prompt are drawn around each candidate's means.
        directions: Which way each objective improves.
        prompts: The search prompts.
        held_out: Those of the check.
        images: How many images the front, the references and the baseline have.
        side: Their height and width.
    """
    path.mkdir(parents=True)
    rng = np.random.default_rng(0)
    specs = {name: f"{name}:x" for name in directions}
    identity = {
        "tuner": "0.2.0",
        "model": result.model,
        "weights": "w",
        "budget": BUDGET,
        "seed": 0,
        "objectives": list(specs.values()),
        "space": "free",
        "prompts": "p",
        "rungs": [len(prompts)],
        "size": [1024, 1024],
        "chunk": 8,
        "lag": 4,
        "references": [one.schedule.content_hash for one in result.evaluated if one.label != "search"],
    }
    about = {
        "id": f"id-of-{path.name}",
        "created": "2026-01-02T03:04:05Z",
        "settings": {"model": result.model, "budget": BUDGET, "study": path.name},
        "identity": identity,
        "directions": directions,
        "baseline": BASELINE.model_dump(mode="json"),
    }
    rows = [{"prompt": text, "seed": seed} for seed, text in enumerate((*prompts, *held_out))]
    (path / "settings.json").write_text(json.dumps(about))
    (path / "prompts.json").write_text(json.dumps(rows))
    (path / "result.json").write_text(result.model_dump_json())

    of_prompts = {name: rng.normal(0, 1, len(prompts)) for name in directions}
    drawn = [(BASELINE, result.baseline.tflops, dict.fromkeys(directions, 0.0))]
    drawn += [
        (one.schedule, one.tflops, {name: score.delta for name, score in one.scores.items()})
        for one in result.evaluated
    ]
    with (path / "scores.jsonl").open("w") as log:
        for number, (schedule, tflops, deltas) in enumerate(drawn):
            scores = {
                specs[name]: list(
                    result.baseline.scores[name].mean + of_prompts[name] + delta + rng.normal(0, 0.2, len(prompts))
                )
                for name, delta in deltas.items()
            }
            line = {
                "weights": "w",
                "schedule": schedule.content_hash,
                "size": [1024, 1024],
                "prompts": list(prompts),
                "seeds": list(range(len(prompts))),
                "tflops": tflops * len(prompts),
                "reused": {},
                "elapsed_s": 10.0 * (number + 1),
                "scores": scores,
            }
            log.write(json.dumps(line) + "\n")

    study = StudyFolder(path)
    kept = {one.schedule.content_hash for one in (*result.front, *result.references, result.pick)}
    for key in (BASELINE.content_hash, *kept) if images else ():
        folder = path / "images" / key
        folder.mkdir(parents=True)
        for number in range(images):
            picture(rng, side).save(folder / f"{number:03d}.png", compress_level=1)
    return study


def picture(rng: np.random.Generator, side: int) -> Image.Image:
    """A smooth image with some grain, about as hard to compress as a photograph."""
    coarse = Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    grain = rng.normal(0, 12, (side, side, 1))
    return Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))
