from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.plan.prompt_files import FIELDS, read_prompts
from tuner.errors import UserError

FOX, SIGN = "a red fox", 'a sign, that says "no, thanks"'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("generation_prompts.txt", f"# GenEval\n{FOX}\n\n  {SIGN} \n{FOX}\n"),
        ("no_suffix", f"{FOX}\n{SIGN}\n"),
        ("DrawBench.csv", f'Prompts,Category\r\n{FOX},Colors\r\n"{SIGN.replace(chr(34), 2 * chr(34))}",Text\r\n'),
        (
            "PartiPrompts.tsv",
            f"Prompt\tCategory\tChallenge\tNote\n{FOX}\tAnimals\tBasic\t\n{SIGN}\tArts\tBasic\t\n",
        ),
        ("CAPTIONS.CSV", f'\ufeffid, Caption \n1,{FOX}\n,\n2,"{SIGN.replace(chr(34), 2 * chr(34))}"\n'),
        (
            "evaluation_metadata.jsonl",
            json.dumps({"tag": "colors", "include": [{"class": "fox"}], "prompt": FOX})
            + "\n\n"
            + json.dumps({"prompt": SIGN}),
        ),
        ("strings.jsonl", f"{json.dumps(FOX)}\n{json.dumps(SIGN)}\n"),
        ("anime.json", json.dumps([FOX, SIGN])),
        ("benchmark.json", json.dumps({"anime": [FOX], "photo": [SIGN, FOX]})),
        (
            "captions_val.json",
            json.dumps({"info": {}, "images": [{"id": 1}], "annotations": [{"caption": FOX}, {"caption": SIGN}]}),
        ),
        ("both.json", json.dumps([{"text": "no", "Prompt": FOX}, {"caption": "no", "prompts": SIGN}])),
    ],
)
def test_every_common_layout_gives_the_prompts_in_order(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    assert read_prompts(tmp_path / name) == [FOX, SIGN]


@given(
    st.lists(
        st.text(
            st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("Cc", "Zl", "Zp")),
            min_size=1,
        )
        .map(str.strip)
        .filter(bool),
        min_size=1,
        unique=True,
    ),
    st.sampled_from(FIELDS),
)
def test_what_a_csv_or_json_writer_wrote_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, prompts: list[str], field: str
) -> None:
    folder = tmp_path_factory.mktemp("prompts")
    with (folder / "p.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("id", field), *enumerate(prompts)])
    (folder / "p.jsonl").write_text("\n".join(json.dumps({field: prompt}) for prompt in prompts), encoding="utf-8")
    assert read_prompts(folder / "p.csv") == read_prompts(folder / "p.jsonl") == prompts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "",
            "no column of prompts in line 1, which names nothing; name the one with the prompts 'prompt'",
        ),
        ("a.csv", "a red fox\na hen\n", "in line 1, which names 'a red fox'"),
        ("a.csv", "id,prompt\n1,a fox\n2,\n", "no 'prompt' in line 3; fill it in, or remove"),
        ("a.csv", "id,prompt\n1\n", "no 'prompt' in line 2"),
        ("a.csv", 'prompt\n"a fox" red\n', r"no table in line 2 .*double the quotes"),
        ("a.tsv", "Text,Category\nx,y\n", "names 'Text,Category'"),
        ("a.jsonl", '{"prompt": "a fox"}\n{"prompt": \n', r"not JSON in line 2 .*one object per line"),
        ("a.jsonl", '{"tag": "x", "include": []}\n', "no field of prompts in line 1, which has 'tag', 'include'"),
        ("a.jsonl", '"a fox"\n7\n', "has 7 for a prompt in line 2; write text"),
        ("a.json", "[1, 2", r"not JSON in line 1 .*write a list"),
        ("a.json", "3", "holds no list of prompts, but int"),
        ("a.json", '{"images": [{"id": 1}]}', "holds no list of prompts, but dict"),
        ("a.json", '["a fox", ""]', r"has '' for a prompt in \[1\]"),
        ("a.json", '{"photo": ["a fox", {"id": 2}]}', r"no field of prompts in photo\[1\], which has 'id'"),
    ],
)
def test_a_broken_file_is_refused_with_its_line_the_rule_and_the_remedy(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message) as error:
        read_prompts(tmp_path / name)
    assert f"{name}'" in str(error.value)
    assert "\n" not in str(error.value)
