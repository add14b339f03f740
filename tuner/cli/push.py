"""``tuner push``: a preset on the hub, with a page that shows it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner.cli import _completion as complete
from tuner.cli._common import json_option, print_json
from tuner.errors import UserError

if TYPE_CHECKING:
    from tuner.presets import Preset

_EXAMPLES = """\b
Examples:
  tuner push runs/flux-3x/preset.yaml owner/name
  tuner push mine.yaml owner/name --private --license apache-2.0
  tuner push mine.yaml owner/name --revision v2   then sample owner/name@v2
"""


@click.command(
    help="Uploads a preset to the Hugging Face hub.\n\nIts LoRA, a picture and a model card go with it. Log in "
    "with `hf auth login` or set HF_TOKEN.\n\n" + _EXAMPLES
)
@click.argument("preset", shell_complete=complete.presets)
@click.argument("repo", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Nobody else sees the repository.")
@click.option("--revision", metavar="BRANCH", help="Branch to commit to; by default the main one.")
@click.option("--license", "licence", metavar="ID", help="Licence of the preset as the hub spells it: apache-2.0.")
@json_option
def command(
    preset: str, repo: str, private: bool, revision: str | None, licence: str | None, as_json: bool
) -> None:
    """Makes the files, commits them and says where."""
    from studies.report.preset_card import PICTURE, card, picture
    from tuner import hub, presets

    if not hub.is_repo(repo):
        raise UserError(f"Repository {repo!r} is no OWNER/NAME; write your name on the hub, a slash and a name.")
    loaded = presets.load(preset)
    shown, lora = _with_own_lora(loaded)
    files: dict[str, bytes | Path] = {
        hub.DEFAULT_FILE: presets.to_yaml(shown).encode(),
        "README.md": card(shown, repo, _base_model(loaded), licence).encode(),
        PICTURE: picture(shown),
    } | ({lora.name: lora} if lora else {})
    url = hub.upload(repo, files, f"Add preset {loaded.name}", private=private, revision=revision)
    if as_json:
        print_json({"repo": repo, "revision": revision, "url": url, "files": sorted(files)})
        return
    click.echo(url)


def _with_own_lora(preset: Preset) -> tuple[Preset, Path | None]:
    """Returns the preset with a local LoRA written as lying beside it, and the LoRA's file."""
    options = preset.model_options
    if options is None or options.lora is None:
        return preset, None
    source, weight = options.lora_and_weight()
    path = Path(source)
    if not path.exists() and not os.path.isabs(source):
        return preset, None  # an id of the hub
    if not path.is_file():
        raise UserError(
            f"LoRA {source!r} of the preset is no file; a preset on the hub takes one file or a hub id."
        )
    lora = f"./{path.name}" + (f":{weight:g}" if weight != 1 else "")
    return preset.model_copy(update={"model_options": options.model_copy(update={"lora": lora})}), path


def _base_model(preset: Preset) -> str | None:
    """Returns the hub id of the preset's model, None if it has none.

    Raises:
        UserError: If the model is a local folder.
    """
    from tuner import hub, models, presets

    if preset.model == presets.ANY_MODEL:
        return None
    if os.path.isabs(preset.model) or os.path.isdir(preset.model):
        raise UserError(
            f"Preset {preset.name!r} is for the local folder {preset.model!r}, which nobody else has; upload the "
            "model and write its hub id as `model` into the preset."
        )
    source = models.blueprint(preset.model).source if preset.model in models.available() else preset.model
    return source if hub.is_repo(source) else None
