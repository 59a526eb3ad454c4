"""A configuration file of the wrong shape gets one sentence that names it."""

import pytest

from rlt.config.compose import compose
from rlt.errors import ConfigError

ENTRIES = "must be a list of names like teacher_rl, _self_ or `override /GROUP@_global_: NAME`, got"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"defaults: [mine]\n", "`defaults` go round in a circle: {path} -> {path}; leave one of them out."),
        (b"defaults: [other]\n", "`defaults` go round in a circle: {path} -> "),
        (b'defaults: [teacher_rl, _self_]\nwandb_project: "\xe9"\n', "{path} is not UTF-8 text (byte 48)"),
        (b"defaults: teacher_rl\n", "`defaults` in {path} " + ENTRIES + " 'teacher_rl'."),
        (b"defaults: {a: b}\n", ENTRIES + " {'a': 'b'}."),
        (b"defaults: [3]\n", ENTRIES + " the entry 3."),
        (b"defaults: [null]\n", ENTRIES + " the entry None."),
        (b"defaults: [{a: b, c: d}]\n", ENTRIES + " the entry {'a': 'b', 'c': 'd'}."),
        (b"defaults: [{model_cfg: x}]\n", "`model_cfg: x` in mine.yaml names no file: write `override /"),
        (
            b"defaults: [teacher_rl, {override model_cfg@_global_: x}]\n",
            "names no group: write /model_cfg@_global_",
        ),
        (b"- a\n", "{path} must hold lines of KEY: VALUE, got ['a']."),
        (b"hello\n", "{path} must hold lines of KEY: VALUE, got hello."),
        (b"null: 3\n", "the key `null` in {path} must be the name of a setting."),
        (b"trainer: {3: 3}\n", "the key `trainer.3` in {path} must be the name of a setting."),
        (b"trainer: 3\n", "`trainer` in {path} is a section: set one of its settings, `trainer: {N"),
        (b"trainer: null\n", "`trainer` in {path} is a section"),
        (b"trainer_args: [a]\n", "`trainer_args` in {path} must be a mapping, got ['a'] (further arguments"),
        (b"model.lora.rank: 3\n", "`model.lora.rank` in {path} must be written with its section: "
         "`model: {lora: {rank: VALUE}}`."),
        (b"seed: 1\n\tseed: 2\n", "{path}, line 2, is not valid YAML: found character"),
        (b"hydra: {run: {dir: x}}\n", "`hydra` in {path} is not a setting"),
        (b"defaults: [teacher_rl, _self_]\nlayout: {teacher_prompt: 'use ${x}'}\n", "`layout.teacher_prompt` "
         "in mine.yaml or a file that it names refers to `${x}`, which is not a setting (write `\\${`"),
    ],
)  # fmt: skip
def test_wrong_shapes(tmp_path, text, expected):
    path = tmp_path / "run_cfg" / "mine.yaml"
    path.parent.mkdir()
    path.write_bytes(text)
    (path.parent / "other.yaml").write_text("defaults: [mine]\n")
    with pytest.raises(ConfigError) as caught:
        compose([str(path)])
    assert expected.replace("{path}", str(path)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_dollar_sign_can_be_meant(tmp_path):
    path = tmp_path / "run_cfg" / "mine.yaml"
    path.parent.mkdir()
    path.write_text("defaults: [teacher_rl, _self_]\nlayout: {teacher_prompt: 'use \\${x}'}\n")
    assert compose([str(path)]).layout.teacher_prompt == "use ${x}"
