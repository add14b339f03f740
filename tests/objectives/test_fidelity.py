from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import objectives
from objectives import _weights
from objectives.base import FidelityObjective
from objectives.psnr import CEILING
from tests.objectives import small_checkpoints
from tuner.errors import UserError

RNG = np.random.default_rng(0)
SIDE = 48


def noise(height: int = SIDE, width: int = SIDE) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 250, (height, width, 3), dtype=np.uint8))


def load(name: str) -> FidelityObjective:
    objective = objectives.load(name)
    assert isinstance(objective, FidelityObjective)
    return objective


def test_psnr_of_a_constant_offset_is_the_formulas() -> None:
    reference = noise()
    brighter = Image.fromarray(np.asarray(reference) + np.uint8(5))
    assert load("psnr").compare([brighter], [reference]) == pytest.approx([10 * math.log10(255**2 / 25)])


def test_psnr_of_equal_images_is_finite() -> None:
    image = noise()
    assert load("psnr").compare([image], [image.copy()]) == [CEILING]


def test_ssim_of_one_window_is_the_formulas() -> None:
    image, reference = noise(11, 11), noise(11, 11)
    offset = np.arange(11) - 5
    window = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * 1.5**2))
    window = (window / window.sum())[..., None]
    x, y = (np.asarray(some, dtype=float) for some in (image, reference))
    mean_x, mean_y = ((window * some).sum((0, 1)) for some in (x, y))
    var_x, var_y = ((window * some**2).sum((0, 1)) - mean**2 for some, mean in ((x, mean_x), (y, mean_y)))
    covariance = (window * x * y).sum((0, 1)) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    expected /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    assert load("ssim").compare([image], [reference]) == pytest.approx([expected.mean()], abs=1e-6)


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("alexnet")
    return folder, small_checkpoints.write_lpips(folder)


def spelled_out_lpips(weights: dict[str, torch.Tensor], image: Image.Image, reference: Image.Image) -> float:
    """Eq. 1 of arXiv 1801.03924 on AlexNet, with the linear weights that the package ships."""
    import lpips

    file = Path(lpips.__file__).parent / "weights" / "v0.1" / "alex.pth"
    linear = torch.load(file, map_location="cpu", weights_only=True)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])

    def features(some: Image.Image) -> list[torch.Tensor]:
        levels = torch.from_numpy(np.asarray(some, dtype=np.float32)) / 255
        x = (((2 * levels - 1) - shift) / scale).movedim(-1, 0)[None]
        found = []
        for number, (stride, padding, pool) in {
            0: (4, 2, False), 3: (1, 2, True), 6: (1, 1, True), 8: (1, 1, False), 10: (1, 1, False)
        }.items():  # fmt: skip
            x = F.max_pool2d(x, 3, 2) if pool else x
            x = F.conv2d(
                x, weights[f"features.{number}.weight"], weights[f"features.{number}.bias"], stride, padding
            )
            x = x.relu()
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    pairs = zip(features(image), features(reference), strict=True)
    return sum(
        float((linear[f"lin{i}.model.1.weight"][0, :, 0, 0, None, None] * (a - b).square()[0]).sum(0).mean())
        for i, (a, b) in enumerate(pairs)
    )


def test_lpips_reads_torchvisions_file_and_gives_the_papers_distance(
    alexnet: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    folder, weights = alexnet
    pairs = [(noise(), noise()), (noise(40, 64), noise(40, 64)), (noise(40, 64), noise(40, 64))]
    scores = load(f"lpips:{folder}").compare(*map(list, zip(*pairs, strict=True)))
    assert scores == pytest.approx([spelled_out_lpips(weights, *pair) for pair in pairs], rel=1e-3)
    assert len({round(score, 4) for score in scores}) == 3


def test_lpips_without_network_says_how_to_give_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", _offline)
    with pytest.raises(UserError, match=r"lpips:/path/to/alexnet-owt-7be5be79\.pth"):
        objectives.load("lpips")


def _offline(*args: object, **options: object) -> None:
    raise OSError("<urlopen error [Errno -3] Temporary failure in name resolution>")


def test_a_fetched_file_is_fetched_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    def download(url: str, path: str, **options: object) -> None:
        asked.append(url)
        Path(path).write_bytes(b"weights")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    paths = [_weights.fetch_url("https://example.org/w.pth", "w.pth") for _ in range(2)]
    assert paths[0] == paths[1]
    assert paths[0].read_bytes() == b"weights"
    assert asked == ["https://example.org/w.pth"]


@pytest.mark.parametrize("name", sorted(small_checkpoints.WRITERS))
def test_missing_and_wrong_files_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no/such") as missing:
        objectives.load(f"{name}:/no/such/file.pth")
    assert "\n" not in str(missing.value)
    for file in (small_checkpoints.lpips.FILE_NAME, small_checkpoints.hpsv2.FILE_NAME):
        torch.save({"something": torch.zeros(1)}, tmp_path / file)
    torch.save({"something": torch.zeros(1)}, tmp_path / small_checkpoints.aesthetic.FILE_NAME)
    with pytest.MonkeyPatch.context() as patch:
        small_checkpoints.write_hpsv2(tmp_path / "..", patch) if name == "hpsv2" else None
        with pytest.raises(UserError, match=str(tmp_path)):
            objectives.load(f"{name}:{tmp_path}")


def test_weights_of_what_has_none_are_refused() -> None:
    with pytest.raises(UserError, match="'psnr' has no weights to choose, but got 'tiny'"):
        objectives.load("psnr:tiny")
