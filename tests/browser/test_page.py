"""The page in a real browser: by mouse, by keyboard, on a phone, in the dark."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from studies.records.study_folder import StudyFolder
from studies.report.page.votes import read_votes, tallies
from tests.browser.conftest import MARKUP, PROMPTS, Browser
from tests.studies.example import study

pytestmark = pytest.mark.servers


def find(browser: Browser, css: str) -> WebElement:
    return browser.driver.find_element(By.CSS_SELECTOR, css)


def find_all(browser: Browser, css: str) -> list[WebElement]:
    return browser.driver.find_elements(By.CSS_SELECTOR, css)


def points(browser: Browser) -> set[int]:
    return {int(point.get_attribute("data-trial") or -1) for point in find_all(browser, ".point[data-trial]")}


def run(browser: Browser, script: str, *arguments: Any) -> Any:
    return browser.driver.execute_script(script, *arguments)


def focused(browser: Browser) -> WebElement:
    return browser.driver.switch_to.active_element


@pytest.mark.parametrize(
    ("name", "width", "height", "scheme"),
    [("light", 1280, 900, "light"), ("dark", 1280, 900, "dark"), ("phone", 390, 844, "light")],
)
def test_the_page_opens_without_errors_requests_or_sideways_scrolling(
    browser: Browser, page: Path, name: str, width: int, height: int, scheme: str
) -> None:
    browser.open(page, width, height, scheme)
    WebDriverWait(browser.driver, 10).until(lambda _: points(browser))
    browser.screenshot(name)
    assert browser.console() == []
    assert browser.requests() == [page.as_uri()]
    assert run(browser, "return document.documentElement.scrollWidth") <= width
    dark = run(browser, "return getComputedStyle(document.body).backgroundColor")
    red = int(dark.removeprefix("rgb(").split(",")[0])
    assert (red < 64) == (scheme == "dark")


def test_texts_of_users_stay_text(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.driver.title == "flux-3x · tuner report"
    assert not find_all(browser, "img:not([src^='data:image/webp'])")
    captions = [caption.text for caption in find_all(browser, "figcaption .prompt")]
    assert MARKUP in captions
    find(browser, "#front details summary").click()
    assert any(MARKUP in row.text for row in find_all(browser, "#front tbody th"))
    run(browser, "Page.select(4)")
    assert MARKUP in find(browser, "#schedule-title").text
    assert MARKUP in (find(browser, ".point[data-trial='4']").get_attribute("aria-label") or "")
    assert browser.driver.title == "flux-3x · tuner report"
    assert browser.console() == []


def test_a_point_is_selected_by_mouse_and_by_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page)
    result = study()
    assert f"Trial {result.pick.trial}" in find(browser, "#schedule-title").text
    other = next(one for one in result.front if one.trial != result.pick.trial and one.label == "search")
    run(browser, "document.getElementById('whole-range').click()")
    run(browser, "arguments[0].scrollIntoView({block: 'center'})", find(browser, "#front-chart"))
    find(browser, f".point[data-trial='{other.trial}'] path").click()
    assert f"Trial {other.trial}" in find(browser, "#schedule-title").text
    assert find(browser, f".point[data-trial='{other.trial}']").get_attribute("aria-selected") == "true"
    assert len(find_all(browser, ".point[tabindex='0']")) == 1
    find(browser, ".point[tabindex='0']").send_keys(Keys.ARROW_LEFT)
    there = focused(browser)
    trial = there.get_attribute("data-trial")
    assert trial != str(other.trial)
    assert find(browser, ".tip").is_displayed()
    there.send_keys(Keys.ENTER)
    assert f"Trial {trial}" in find(browser, "#schedule-title").text
    assert focused(browser).get_attribute("data-trial") == trial


def test_families_can_be_hidden_and_axes_chosen(browser: Browser, page: Path) -> None:
    browser.open(page)
    find(browser, "#whole-range").click()
    result = study()
    assert points(browser) == {one.trial for one in result.evaluated}
    find(browser, "#families input[value='plain']").click()
    plain = {one.trial for one in result.evaluated if one.label.startswith("plain:")}
    assert points(browser) == {one.trial for one in result.evaluated} - plain | {result.pick.trial}
    Select(find(browser, "#x-axis")).select_by_value("clip")
    Select(find(browser, "#y-axis")).select_by_value("image_reward")
    assert "clip" in (find(browser, "#front-chart svg").get_attribute("aria-label") or "")
    searched = [one for one in result.front if one.label == "search" or not one.label.startswith("plain:")]
    best = max(searched, key=lambda one: one.scores["clip"].delta)
    assert "joined" in (find(browser, f".point[data-trial='{best.trial}']").get_attribute("class") or "")


def test_the_slider_moves_by_arrow_keys_and_views_change(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert len(find_all(browser, "#gallery figure")) == 3
    assert "3 of 5 search prompts have images" in find(browser, "#images-note").text
    slider, frame = find(browser, ".frame input"), find(browser, ".frame")
    slider.send_keys(Keys.ARROW_LEFT * 5)
    assert run(browser, "return arguments[0].style.getPropertyValue('--cut')", frame) == "45%"
    find(browser, "input[name='mode'][value='difference']").click()
    blend = "return getComputedStyle(document.querySelector('.over')).mixBlendMode"
    assert run(browser, blend) == "difference"
    assert not slider.is_displayed()


def test_images_are_sorted_by_the_difference_of_the_chosen_objective(browser: Browser, page: Path) -> None:
    browser.open(page)
    Select(find(browser, "#image-order")).select_by_value("gain clip")
    gains = [
        float(found.text.replace("\u2212", "-").replace("+", ""))
        for found in find_all(browser, "figcaption .scores li:first-child b")
    ]
    assert len(gains) == 3
    assert gains == sorted(gains, reverse=True)


def test_votes_cast_by_keyboard_are_read_back(browser: Browser, page: Path, tmp_path: Path) -> None:
    browser.open(page)
    browser.download_to(tmp_path)
    trial = study().pick.trial
    find(browser, "#vote-start").send_keys(Keys.ENTER)
    assert focused(browser).get_attribute("id") == "ballot"
    seen = []
    for key in (Keys.ARROW_LEFT, Keys.ARROW_DOWN, Keys.ARROW_RIGHT):
        seen.append(find(browser, "#ballot .prompt strong").text)
        focused(browser).send_keys(key)
    assert sorted(seen) == sorted(PROMPTS[:3])
    assert "Done" in find(browser, "#ballot").text
    find(browser, "#vote-save").click()
    file = tmp_path / "votes-flux-3x.json"
    WebDriverWait(browser.driver, 10).until(lambda _: file.exists())
    time.sleep(0.1)
    raw = json.loads(file.read_text(encoding="utf-8"))["votes"]
    assert [vote["left"] == vote["winner"] for vote in raw] == [True, False, raw[2]["winner"] == raw[2]["left"]]
    assert raw[2]["winner"] != raw[2]["left"]
    votes = read_votes(StudyFolder(page.parent / "flux-3x"), [file])
    assert [PROMPTS[vote.prompt] for vote in votes] == seen
    (tally,) = tallies(votes)
    assert (tally.trial, tally.ties, tally.wins + tally.losses) == (trial, 1, 2)


def test_a_vote_can_be_taken_back(browser: Browser, page: Path) -> None:
    browser.open(page)
    find(browser, "#vote-start").click()
    first = find(browser, "#ballot .prompt strong").text
    focused(browser).send_keys(Keys.ARROW_LEFT)
    assert find(browser, "#ballot .prompt").text.startswith("2 of 3")
    focused(browser).send_keys(Keys.BACKSPACE)
    assert find(browser, "#ballot .prompt strong").text == first
    assert not find(browser, "#vote-save").is_enabled()


def test_exports_are_offered_or_refused_with_a_reason(browser: Browser, page: Path) -> None:
    browser.open(page)
    names = [name.text for name in find_all(browser, ".exports strong")]
    assert {"Python", "Command line", "yaml", "comfyui", "diffusers", "sigmas"} <= set(names)
    for refused in find_all(browser, ".exports .refused span"):
        assert refused.text.startswith("Not available: ")
    copy = find(browser, "[aria-label='Copy Python']")
    copy.click()
    WebDriverWait(browser.driver, 5).until(lambda _: copy.text == "Copied")


def test_everything_that_is_used_by_mouse_is_reached_by_tab(browser: Browser, page: Path) -> None:
    browser.open(page)
    reached = set()
    find(browser, "body").click()
    for _ in range(60):
        focused(browser).send_keys(Keys.TAB)
        now = focused(browser)
        reached.add(now.get_attribute("id") or now.get_attribute("data-trial") or now.get_attribute("type"))
    assert {
        "x-axis",
        "y-axis",
        "whole-range",
        str(study().pick.trial),
        "image-order",
        "range",
        "vote-start",
    } <= reached
