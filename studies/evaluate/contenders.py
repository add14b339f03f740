"""Makes the schedules of an evaluation: the user's presets, each with its own options, and plain steps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from studies.plan.identity import options_identity
from studies.plan.references import plain_steps_at
from studies.work.own_options import Contender, OwnOptions, drawing_price
from tuner import presets
from tuner.errors import UserError
from tuner.models import Blueprint, ModelOptions, Size
from tuner.presets import PLAIN

if TYPE_CHECKING:
    from tuner.presets import Preset


def load_named(names: Sequence[str]) -> dict[str, Preset]:
    """Reads the presets that are not plain steps, by the user's names.

    Raises:
        UserError: If one cannot be read.
    """
    return {name: presets.load(name) for name in names if not name.startswith(PLAIN)}


def contender(
    text: str, loaded: Mapping[str, Preset], model: Blueprint, given: ModelOptions, size: Size
) -> Contender:
    """Makes a contender of a user's name.

    Args:
        text: A key of ``loaded``, ``plain:N`` or ``plain:N-SOLVER``.
        loaded: Presets by the user's names.
        model: The model, with the options that it is loaded with.
        given: Those options.
        size: Output (height, width) in pixels.

    Raises:
        UserError: If the number of plain steps is none, or if a preset's own options do not go with the model.
    """
    if text in loaded:
        preset = loaded[text]
        return Contender(preset.name, preset.schedule, _own_options(preset, model, given))
    steps, solver = presets.plain_steps(text)
    return plain(steps, model, size, solver)


def plain(steps: int, model: Blueprint, size: Size, solver: str | None = None) -> Contender:
    """Makes plain steps."""
    return Contender(presets.plain_name(steps, solver), model.plain(steps, size, solver))


def with_plain_rivals(
    asked: Sequence[Contender], baseline: Contender, model: Blueprint, size: Size
) -> tuple[tuple[Contender, ...], dict[str, str]]:
    """Adds for each contender the cheapest plain steps that cost at least as much.

    Returns:
        All contenders, each once and without the baseline; and the name of the plain steps for each name of
        a contender that is not plain itself.

    Raises:
        UserError: If two that differ have one name.
    """
    known = {baseline.key: baseline}
    for one in asked:
        known.setdefault(one.key, one)
    rivals = {}
    for one in list(known.values()):
        cost = drawing_price(one.schedule, one.own, model, size).tflops
        rival = plain(plain_steps_at(cost, model, size), model, size)
        if one is not baseline and rival.key != one.key:
            rivals[one.name] = known.setdefault(rival.key, rival).name
    names = [one.name for one in known.values()]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"Two different presets are named {twice!r}; change the `name` in one of the files.")
    return tuple(one for one in known.values() if one is not baseline), rivals


def _own_options(preset: Preset, model: Blueprint, given: ModelOptions) -> OwnOptions | None:
    """Returns the options of a preset that the model is not loaded with, or None."""
    made_for = (preset.model_options or ModelOptions()).of_presets() or ModelOptions()
    loaded_with = given.of_images() | {"guidance": model.guidance, "frames": model.frames}
    own = {name: value for name, value in made_for.of_images().items() if loaded_with.get(name) != value}
    if not own:
        return None
    if "frames" in own:
        raise UserError(
            f"Preset {preset.name!r} is for {own['frames']} frames, and all are compared at {model.frames}; give "
            f"--frames {own['frames']}."
        )
    if "lora" in own and given.lora is not None:
        raise UserError(
            f"Preset {preset.name!r} has a LoRA of its own, which cannot be added to {given.lora!r}; leave --lora "
            "out, and every preset is drawn with its own."
        )
    options = ModelOptions(**own)
    model.with_options(options)  # whether the model has a use for them
    source = options.lora_and_weight()[0] if options.lora else ""
    if source.startswith("/") and not Path(source).exists():
        raise UserError(f"LoRA {source!r} of preset {preset.name!r} does not exist; put it there.")
    identity = json.dumps(options_identity(options), sort_keys=True)
    return OwnOptions(options, hashlib.sha256(identity.encode()).hexdigest()[:8])
