"""Configs are plain data: whatever a file or an option holds, nothing of it is run."""

from __future__ import annotations

import sys
import time

import pytest
from conftest import CONFIGS

from ulga_d2.engine.launch import run

LEAF = CONFIGS / "brain_tumor_swin_ulga_nano.yaml"
TOUCH = "touch {0}"

# Values of OUTPUT_DIR, a text; {0} is a file that none of them may make.
VALUES = {
    "apply system": f"!!python/object/apply:os.system ['{TOUCH}']",
    "apply popen": f"!!python/object/apply:subprocess.Popen [[{TOUCH.replace(' ', ', ')}]]",
    "apply eval": '!!python/object/apply:eval [\'open("{0}", "w")\']',
    "apply exec": '!!python/object/apply:builtins.exec [\'open("{0}", "w")\']',
    "apply open": "!!python/object/apply:builtins.open ['{0}', 'w']",
    "apply with parts": "!!python/object/apply:os.system {{args: ['touch {0}']}}",
    "apply path": "!!python/object/apply:pathlib.Path.touch ['{0}']",
    "new": f"!!python/object/new:os.system ['{TOUCH}']",
    "new with state": "!!python/object/new:type {{args: [a, [], {{}}], state: {{x: '{0}'}}}}",
    "new with listitems": "!!python/object/new:list {{listitems: ['{0}']}}",
    "object": "!!python/object:os._wrap_close {{_proc: '{0}'}}",
    "object of ours": "!!python/object:ulga_d2.errors.UserError {{args: ['{0}']}}",
    "name": "!!python/name:os.system",
    "name of a missing module": "!!python/name:ulga_canary.run",
    "module": "!!python/module:os",
    "module with code": "!!python/module:ulga_canary",
    "tuple": "!!python/tuple ['{0}']",
    "python str": "!!python/str '{0}'",
    "python unicode": "!!python/unicode '{0}'",
    "python bytes": "!!python/bytes 'aGVsbG8='",
    "python complex": "!!python/complex 1+2j",
    "python none": "!!python/none",
    "python bool": "!!python/bool True",
    "python dict": "!!python/dict {{a: '{0}'}}",
    "full tag": f"!<tag:yaml.org,2002:python/object/apply:os.system> ['{TOUCH}']",
    "custom": f"!run '{TOUCH}'",
    "environment": "!ENV ${{HOME}}",
    "include": "!include {0}",
    "binary that is none": "!!binary '@@@'",
    "binary": "!!binary 'aGVsbG8='",
    "set": "!!set {{a, b}}",
    "ordered map": "!!omap [a: 1]",
    "pairs": "!!pairs [a: 1]",
    "date": "!!timestamp 2001-12-14",
    "no date": "!!timestamp 'x'",
    "no number": "!!int 'x'",
    "no bool": "!!bool 'x'",
}

# Whole files.
FILES = {
    "tag on a key": f"!!python/object/apply:os.system ['{TOUCH}']: 1\n",
    "tag on the file": f"!!python/object/apply:os.system ['{TOUCH}']\n",
    "declared tag": f"%TAG !p! tag:yaml.org,2002:python/object/apply:\n---\nSEED: !p!os.system ['{TOUCH}']\n",  # noqa: E501
    "second document": f"SEED: 1\n---\n!!python/object/apply:os.system ['{TOUCH}']\n",
    "merge key with a tag": f"<<: !!python/object/apply:os.system ['{TOUCH}']\n",
    "alias of itself": "SEED: &a [*a]\n",
    "node in itself": "MODEL: &a\n  ULGA: *a\n",
    "lists that double": "a0: &a0 [x]\n"
    + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40)),
    "maps that double": "a0: &a0 {{x: 1}}\n"
    + "".join(f"a{i}: &a{i} {{{{p: *a{i - 1}, q: *a{i - 1}}}}}\n" for i in range(1, 40)),
    "merge keys that double": "a0: &a0 {{x: 1}}\n"
    + "".join(f"a{i}: &a{i} {{{{<<: [*a{i - 1}, *a{i - 1}]}}}}\n" for i in range(1, 40)),
    "deep": "SEED: " + "[" * 5000 + "]" * 5000 + "\n",
    "its own base": "_BASE_: wrong.yaml\n",
    "its own base, twice": "_BASE_: [wrong.yaml, wrong.yaml]\n",
    "base by a merge key": "<<: {{_BASE_: wrong.yaml}}\n",
    "base that is a map": "_BASE_: {{a: 1}}\n",
    "base that is a device": "_BASE_: /dev/zero\n",
    "base in a network": "_BASE_: http://192.0.2.1/config.yaml\n",
    "base with a tag": "_BASE_: base.yaml\n",
}


def refused(words: list[str], capsys) -> str:
    start = time.perf_counter()
    assert run(words) == 2
    assert time.perf_counter() - start < 20  # what doubles 40 times would take years
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "Traceback" not in message
    return message


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """Return a file that must not appear; importing `ulga_canary` would write it."""
    path = tmp_path / "canary"
    (tmp_path / "ulga_canary.py").write_text(f"open({str(path)!r}, 'w')\ndef run(): pass\n")
    (tmp_path / "base.yaml").write_text(f"SEED: !!python/object/apply:os.system ['touch {path}']\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield path
    assert not path.exists()
    assert "ulga_canary" not in sys.modules


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_tag_is_refused_and_runs_nothing(tmp_path, canary, capsys, value):
    file = tmp_path / "wrong.yaml"
    file.write_text(f"_BASE_: {LEAF}\nOUTPUT_DIR: {value.format(canary)}\n")
    assert str(file) in refused(["--config-file", str(file)], capsys)


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_a_file_that_is_no_config_is_refused_and_runs_nothing(tmp_path, canary, capsys, text):
    file = tmp_path / "wrong.yaml"
    file.write_text(text.format(canary))
    assert str(tmp_path) in refused(["--config-file", str(file)], capsys)


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_tag_on_the_command_line_is_a_text(canary, capsys, value):
    words = ["--config-file", str(LEAF), "SEED", value.format(canary)]
    assert "SEED takes a int" in refused(words, capsys)


@pytest.mark.parametrize(
    "value",
    ["__import__('os').system('touch {0}')", "[open('{0}', 'w')]", "f'{{open(\"{0}\")}}'",
     "(" * 5000, "-" * 100_000 + "1", "9" * 10_000],
    ids=["import", "open", "f-string", "parentheses", "signs", "digits"],
)  # fmt: skip
def test_code_on_the_command_line_is_a_text(canary, capsys, value):
    words = ["--config-file", str(LEAF), "SEED", value.format(canary)]
    assert "SEED" in refused(words, capsys)
