"""What the page of a study holds, without a browser; `tests/browser` opens it in one."""

from __future__ import annotations

import io
import itertools
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scipy.stats import norm

import studies.plan.plan
import studies.workers.latency
from studies import SearchSettings, StudyResult, open_study, search
from studies.judge.pareto import front, knee
from studies.records.results import Pick
from studies.records.study_folder import StudyFolder
from studies.report.page import page
from studies.report.page.contents import Contents
from studies.report.page.document import embedded
from studies.report.page.images import packed
from studies.report.page.votes import Vote, read_votes, tallies, votes_table
from studies.report.page.words import amount, command, found_unseen
from tests.studies.example import DIRECTIONS, candidate, study
from tests.studies.study_files import picture, write_study
from tests.studies.toy import Counting, find_blueprint, toy_settings
from tuner import models
from tuner.errors import UserError
from tuner.latency import LatencyTable
from tuner.presets import Score
from tuner.tables import View, layout

HOSTILE = "</script><script>alert(1)</script><!--<img src=x onerror=alert(1)>&\u2028"


def toy_study() -> StudyResult:
    """The made-up study, said to be of a model that is priced in no time."""
    return study().model_copy(update={"model": "toy"})


class Parsed(HTMLParser):
    """The elements of a page, and the text of its scripts by id."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str | None, str] = {}
        self._inside: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts[dict(attrs).get("id")] = ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[list(self.scripts)[-1]] += data


def test_no_text_of_a_user_ends_the_data_or_starts_an_element(tmp_path: Path) -> None:
    result = toy_study()
    hostile = [one.model_copy(update={"label": HOSTILE}) if one.trial == 4 else one for one in result.evaluated]
    result = result.model_copy(
        update={"evaluated": hostile, "front": [hostile[one.trial] for one in result.front]}
    )
    parsed = Parsed(page(write_study(tmp_path / "flux-3x", result, DIRECTIONS, [HOSTILE, "b"], ["c", "d"])))
    assert set(parsed.scripts) == {"data", "image-data", None}
    assert json.loads(parsed.scripts["data"])["prompts"] == [HOSTILE, "b"]
    assert not [tag for tag, _ in parsed.elements if tag == "img"]
    addresses = [
        value for _, attributes in parsed.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert all(address and address.startswith("#") for address in addresses)


@pytest.mark.parametrize("text", [HOSTILE, "<", "&lt;", "\u2029", "a\"b'c\\"])
def test_embedded_data_is_json_without_a_character_of_markup(text: str) -> None:
    written = embedded({text: [text]})
    assert not set("<>&\u2028\u2029") & set(written)
    assert json.loads(written) == {text: [text]}


def test_a_page_of_200_trials_with_16_images_each_is_less_than_5_mb(tmp_path: Path) -> None:
    good = [
        candidate(trial, "search", [(0.5, 40 - trial), (1.0, 1 + trial)], trial / 50, trial / 90)
        for trial in range(40)
    ]
    bad = [candidate(trial, "search", [(1.0, 1 + trial % 60)], -9.0, -1 / trial) for trial in range(40, 200)]
    trials = [*good, *bad]
    members = front(trials, DIRECTIONS)
    result = toy_study().model_copy(
        update={
            "evaluated": trials,
            "front": members,
            "references": trials[:10],
            "pick": Pick(**dict(knee(trials, DIRECTIONS)), held_out={}),
        }
    )
    prompts = [f"prompt {number}" for number in range(32)]
    written = write_study(tmp_path / "flux-3x", result, DIRECTIONS, prompts, images=16, side=64)
    text = page(written)
    assert len(text.encode()) < 5_000_000
    images = json.loads(Parsed(text).scripts["image-data"])
    assert len(members) >= 40
    assert len(images) == 1 + len({*(one.schedule for one in (*members, *trials[:10]))})
    assert all(len(of_schedule) == 16 for of_schedule in images.values())


def test_small_images_stay_as_they_are_where_that_fits(tmp_path: Path) -> None:
    image = picture(np.random.default_rng(0), 32)
    image.save(tmp_path / "000.png")
    encoded, side = packed({"a": [tmp_path / "000.png"]}, 100_000)
    assert side == 32
    assert np.array_equal(np.asarray(decoded(encoded["a"][0])), np.asarray(image))


@pytest.mark.parametrize("limit", [150_000, 20_000, 8_000])
def test_images_fit_a_limit_and_every_schedule_has_the_same_prompts(tmp_path: Path, limit: int) -> None:
    files = {}
    rng = np.random.default_rng(0)
    for key in "ab":
        paths = [tmp_path / f"{key}" / f"{number:03d}.png" for number in range(4)]
        paths[0].parent.mkdir()
        for path in paths:
            picture(rng, 300).save(path)
        files[key] = paths
    encoded, side = packed(files, limit)
    assert sum(len(text) for of_schedule in encoded.values() for text in of_schedule.values()) <= limit
    assert set(encoded["a"]) == set(encoded["b"])
    assert all(max(decoded(text).size) == side for text in encoded["a"].values())


def decoded(text: str) -> Image.Image:
    import base64

    return Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")


@pytest.mark.parametrize(
    ("direction", "delta", "ci95", "words"),
    [
        (
            "maximize",
            -0.2,
            (-0.3, 0.1),
            "no difference could be measured; it may be worse by up to 0.3 or better by up to 0.1",
        ),
        (
            "minimize",
            -0.2,
            (-0.3, 0.1),
            "no difference could be measured; it may be worse by up to 0.1 or better by up to 0.3",
        ),
        ("maximize", -0.2, (-0.3, -0.1), "worse by 0.2 on average, by at most 0.3"),
        ("minimize", -0.2, (-0.3, -0.1), "better by 0.2 on average, by at least 0.1"),
        ("maximize", 0.2, (0.1, 0.3), "better by 0.2 on average, by at least 0.1"),
        ("maximize", 0.0, (0.0, 0.0), "the same as the baseline on each prompt"),
    ],
)
def test_the_check_on_unseen_prompts_is_said_in_words(
    direction: Any, delta: float, ci95: tuple[float, float], words: str
) -> None:
    result = study()
    pick = result.pick.model_copy(update={"held_out": {"x": Score(mean=1.0, delta=delta, ci95=ci95)}})
    assert found_unseen(result.model_copy(update={"pick": pick}), {"x": direction}) == {"x": words}


def test_amounts_have_no_exponents() -> None:
    assert [amount(value) for value in (1.25e6, 1234.56, 0.0012345, 0.0)] == [
        "1,250,000",
        "1,235",
        "0.001234",
        "0",
    ]


def test_the_command_of_a_study_is_parsed_to_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    from tuner.cli.search import command as search_command

    settings = SearchSettings(
        model="flux",
        budget="40%",
        objectives=("clip", "image_reward:me/my weights"),
        start=("ralu-flux-4x", "mine.yaml"),
        size=(512, 768),
        reuse=False,
        study="a+b",
        time_limit=90.0,
        options=models.ModelOptions(guidance=3.5, negative_prompt='it\'s "bad"', compile=True),
    )
    seen: list[SearchSettings] = []

    def refuse(given: SearchSettings, *_: Any, **__: Any) -> StudyResult:
        seen.append(given)
        raise UserError("stop")

    monkeypatch.setattr(studies, "search", refuse)
    words = shlex.split(command(settings))
    with pytest.raises(UserError, match="stop"):
        search_command.main(words[2:], standalone_mode=False)
    assert seen == [settings]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies.plan.plan, "blueprint", find_blueprint)
        settings = toy_settings(tmp_path_factory.mktemp("toy"), rungs=1)
        search(settings, executor=Counting())
    return open_study(settings.out, settings.name)


@pytest.fixture(autouse=True)
def toy_is_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "blueprint", find_blueprint)


def test_a_real_study_is_told_from_its_score_log(toy: StudyFolder) -> None:
    contents = Contents(toy)
    data, result = contents.data(), toy.result()
    spent = {part: tflops for part, tflops in data["spending"].items() if not part.startswith("reused")}
    assert sum(spent.values()) == pytest.approx(result.tflops_spent)
    assert all(tflops > 0 for tflops in spent.values())
    volumes = [row["hypervolume"] for row in data["history"]]
    assert volumes[-1] == 1
    assert all(before <= after + 1e-12 for before, after in itertools.pairwise(volumes))
    assert [data["history"][-1][kind] for kind in ("scored", "finished")] == [len(result.evaluated)] * 2
    assert data["budget"]["tflops"] == pytest.approx(result.baseline.tflops / 3)
    for one, known in zip(data["candidates"], result.evaluated, strict=True):
        for name, values in one["prompt_scores"].items():
            assert np.mean(values) == pytest.approx(known.scores[name].mean, rel=1e-5)
    assert set(data["exports"]) == {one.trial for one in contents.shown}
    for forms in data["exports"].values():
        assert all(("text" in form) != ("refused" in form) for form in forms)
        assert {form["name"] for form in forms if "text" in form} >= {"yaml", "Python", "Command line"}


def test_an_interrupted_study_has_a_page_that_says_so(tmp_path: Path) -> None:
    settings = toy_settings(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        search(settings, executor=Counting(interrupt_after=20))
    folder = open_study(settings.out, settings.name)
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    text = page(folder)
    assert "partial: the search is not finished" in text
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before
    so_far = Contents(folder).result
    whole = {one.schedule: one for one in search(settings, executor=Counting(), resume=True).evaluated}
    assert so_far.evaluated
    for one in so_far.evaluated:
        known = whole[one.schedule]
        assert (one.label, one.tflops, one.nfe) == (known.label, known.tflops, known.nfe)
        if one.stopped_at == known.stopped_at:
            assert one.scores == known.scores
    assert "partial: the search" not in page(folder)


def test_a_study_in_seconds_has_an_axis_and_a_budget_in_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = LatencyTable("abacus", 1.0, {(8, 8): 0.1, (16, 16): 0.2, (24, 24): 0.5, (32, 32): 1.0})
    monkeypatch.setattr(studies.workers.latency, "measure", lambda *_: table)
    settings = toy_settings(tmp_path, budget="6s", workers=0, trials=2)
    result = search(settings, executor=Counting())
    folder = open_study(settings.out, settings.name)
    data = Contents(folder).data()
    assert data["budget"]["seconds"] == 6
    assert data["baseline"]["seconds"] == 21
    assert [one["seconds"] for one in data["candidates"]] == [one.seconds for one in result.evaluated]
    assert "s per image instead of 21 s" in page(folder)


def test_a_study_of_a_model_that_is_not_here_has_a_page_without_its_exports(tmp_path: Path) -> None:
    result = toy_study().model_copy(update={"model": "gone"})
    folder = write_study(tmp_path / "gone-3x", result, DIRECTIONS, ["a", "b"], ["c"])
    contents = Contents(folder)
    data = contents.data()
    assert data["budget"]["tflops"] is None
    forms = {form["name"]: form for form in data["exports"][result.pick.trial]}
    assert "text" in forms["yaml"]
    assert "name one with --model" in forms["comfyui"]["refused"]
    assert page(folder)


def test_a_study_without_any_finished_schedule_is_refused_in_one_line(tmp_path: Path) -> None:
    settings = toy_settings(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        search(settings, executor=Counting(interrupt_after=3))
    with pytest.raises(UserError, match="no schedule yet that was scored on all prompts"):
        page(open_study(settings.out, settings.name))


def test_win_rates_have_the_interval_of_wilson() -> None:
    votes = [
        Vote(trial=3, prompt=0, winner=winner) for winner in ["schedule"] * 7 + ["baseline"] * 3 + ["tie"] * 5
    ]
    (tally,) = tallies(votes)
    n, p, z = 10, 0.7, norm.ppf(0.975)
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (tally.wins, tally.losses, tally.ties, tally.win_rate) == (7, 3, 5, 0.7)
    assert tally.ci95 == pytest.approx(((middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)))


def test_ties_alone_give_no_win_rate() -> None:
    (tally,) = tallies([Vote(trial=3, prompt=0, winner="tie")])
    assert (tally.win_rate, tally.ci95) == (None, None)


def test_votes_stand_beside_the_scores() -> None:
    result = study()
    text = io.StringIO()
    votes = [Vote(trial=result.pick.trial, prompt=prompt, winner="schedule") for prompt in range(4)]
    Console(file=text, width=200).print(layout(votes_table(result, tallies(votes)), View(), 200))
    assert re.search(r"11 .* 4 .* 0 .* 0 .* 100% \[51%, 100%\] .* 31.12 \(-0.134", text.getvalue())
    with pytest.raises(UserError, match="trial 999"):
        votes_table(result, tallies([Vote(trial=999, prompt=0, winner="tie")]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"study": "another", "votes": []}', "another study"),
        ('{"votes": []}', "study: Field required"),
        ('{"study": "id-of-flux-3x", "votes": [{"trial": 1, "prompt": 0, "winner": "me"}]}', "votes.0.winner"),
        ("no JSON", "Invalid JSON"),
        (None, "cannot be read"),
    ],
)
def test_files_that_are_no_votes_of_the_study_are_refused(
    tmp_path: Path, content: str | None, message: str
) -> None:
    folder = write_study(tmp_path / "flux-3x", study(), DIRECTIONS, ["a", "b"])
    file = tmp_path / "votes.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=message):
        read_votes(folder, [file])
