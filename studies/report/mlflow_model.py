"""The exporter to MLflow: a preset as a model in MLflow's format, which answers prompts with images.

It lives here because the library itself does not know MLflow; the entry point ``mlflow`` of the group
``tuner.exporters`` names it.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from studies.records.environment import environment
from studies.report.mlflow_runs import ENVIRONMENT
from tuner import models, presets
from tuner.errors import one_line, unwritable
from tuner.exporters import Exporter, ExportOptions, RefusedError
from tuner.exporters.base import known_model

if TYPE_CHECKING:
    from tuner.models import Blueprint
    from tuner.presets import Preset

_CODE = '''"""{name}: {source}

A model of MLflow, written by `tuner export`: prompts and maybe seeds in, images out, as PNG in base64.
"""

import mlflow

from studies.report.mlflow_pyfunc import PresetModel

PRESET = """
{preset}"""

mlflow.models.set_model(PresetModel(PRESET, model={model!r}))
'''


class _MLflow(Exporter):
    target = "MLflow"
    suffixes: ClassVar[tuple[str, ...]] = (".mlflow",)

    def export(self, preset: Preset, blueprint: Blueprint | None, options: ExportOptions) -> str:
        """Writes the code of the model, as ``save`` puts it into the folder; see `Exporter.export`."""
        known = known_model(preset, blueprint)
        if known.fps is not None:
            raise RefusedError(
                self.target,
                None,
                f"a model answers with images, and {known.name} makes videos",
                "use format 'yaml'",
            )
        return _CODE.format(
            name=preset.name,
            source=one_line(preset.source).replace('"', "'"),
            preset=presets.to_yaml(preset).replace("\\", "\\\\").replace('"', '\\"'),
            model=known.name if models.is_available(known.name) else known.source,
        )

    def save(self, preset: Preset, blueprint: Blueprint | None, options: ExportOptions, path: Path) -> None:
        """Writes the model's folder, in the place of a model that is there; see `Exporter.save`."""
        code = self.export(preset, blueprint, options)
        with tempfile.TemporaryDirectory() as folder, _quiet():
            import mlflow

            file = Path(folder) / "preset_model.py"
            file.write_text(code, encoding="utf-8")
            try:
                if (path / "MLmodel").is_file():
                    shutil.rmtree(path)
                path.parent.mkdir(parents=True, exist_ok=True)
                mlflow.pyfunc.save_model(
                    path,
                    python_model=str(file),
                    artifacts=_lora(preset),
                    pip_requirements=[f"tuner=={importlib.metadata.version('tuner')}"],
                )
            except OSError as error:
                raise unwritable("Export", path, error) from error


def _lora(preset: Preset) -> dict[str, str] | None:
    """Returns the preset's LoRA where it is a local file or folder, which the model takes along."""
    if preset.model_options is None or preset.model_options.lora is None:
        return None
    source, _ = preset.model_options.lora_and_weight()
    return {"lora": source} if Path(source).exists() else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps off the terminal what MLflow says about environments and type hints."""
    with environment(ENVIRONMENT | {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}), warnings.catch_warnings():
        import mlflow.pyfunc.model  # sets filters and levels of its own  # noqa: F401

        warnings.simplefilter("ignore")
        logger = logging.getLogger("mlflow")
        before = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(before)


EXPORTER = _MLflow()
