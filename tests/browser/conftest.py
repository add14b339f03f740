"""A real browser without a window, and pages that it opens from the disk."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from studies.report.files import write_report
from tests.studies.example import DIRECTIONS, study
from tests.studies.study_files import write_study

MARKUP = "<img src=x onerror=\"document.title='broken'\">&amp;</script><script>document.title='broken'</script>"
PROMPTS = ["a red fox", MARKUP, "ein blaues Huhn «im Schnee»", "a green hat", "a grey cat"]
SCREENSHOTS = "TUNER_SCREENSHOTS"
"""The environment variable that names a folder for screenshots."""


class Browser:
    """Chromium, and what it has said and asked for since a page was opened."""

    def __init__(self, driver: Chrome, shots: Path):
        self.driver = driver
        self._shots = shots

    def open(self, page: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        self.visit(page.as_uri(), width, height, scheme)

    def visit(self, url: str, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        self._cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self._cdp(
            "Emulation.setEmulatedMedia",
            features=[
                {"name": "prefers-color-scheme", "value": scheme},
                {"name": "prefers-reduced-motion", "value": "reduce"},
            ],
        )
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(url)

    def requests(self) -> list[str]:
        """Addresses that were asked for, but for the page itself."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [
            event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in sent if not url.startswith(("data:", "about:"))]

    def console(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def download_to(self, folder: Path) -> None:
        self._cdp("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def screenshot(self, name: str) -> None:
        size = self._cdp("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 8000), "scale": 1}
        shot = self._cdp("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        (self._shots / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def _cdp(self, command: str, **arguments: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, arguments)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium, driver_path = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver_path is None:
        reason = "needs chromium and chromedriver: apt-get install chromium chromium-driver"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    options = ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(driver_path))
    shots = Path(os.environ.get(SCREENSHOTS) or tmp_path_factory.mktemp("screenshots"))
    shots.mkdir(parents=True, exist_ok=True)
    try:
        yield Browser(driver, shots)
    finally:
        driver.quit()


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study whose prompts, and the name of whose preset, are full of markup."""
    folder = tmp_path_factory.mktemp("page")
    result = study()
    renamed = {one.trial: one.model_copy(update={"label": MARKUP}) for one in result.evaluated if one.trial == 4}
    result = result.model_copy(
        update={
            "evaluated": [renamed.get(one.trial, one) for one in result.evaluated],
            "front": [renamed.get(one.trial, one) for one in result.front],
            "references": [renamed.get(one.trial, one) for one in result.references],
        }
    )
    written = write_study(folder / "flux-3x", result, DIRECTIONS, PROMPTS, ["unseen"] * 4, images=3, side=96)
    return write_report(written, folder / "report.html")
