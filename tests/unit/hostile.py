"""Recipes and data files that somebody mistyped, tore or made to do harm: material for test_hostile.py and the fuzzers.

Each entry is {name: (content, what the message says)}; bytes are written as they are.
"""

from __future__ import annotations

import json

HEAD = "schema: 1\nname: mine\n"
RECIPE = HEAD + "stages:\n  - kind: sft\n    data: compliance\n    steps: 5\n"
EXPERIMENT = """\
schema: 1
name: tiny
model: micro
pack: micro
seeds: [0]
arms:
  base: {}
  naive: {recipe: micro/naive}
"""
LAUGHS = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))

# files that are validated as recipes
RECIPES: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "empty"),
    "a list": ("- a\n", "expected a"),
    "prose": ("just words", "expected a mapping"),
    "two documents": (RECIPE + "---\n" + RECIPE, "a second document"),
    "a key twice": (RECIPE + "name: again\n", "duplicate key"),
    "a billion laughs": (LAUGHS, "the anchor &a is refused"),
    "an alias of itself": (HEAD + "stages: &s [*s]\n", "the alias *s is refused"),
    "a merge": (RECIPE + "<<: {name: other}\n", "merge key"),
    "a tag that calls": (HEAD + 'stages: !!python/object/apply:os.system ["true"]\n', "the tag"),
    "a plain tag": (RECIPE.replace("5", "!!int 5"), "the tag"),
    "a directive": ("%TAG ! tag:x,2000:\n---\n" + RECIPE.replace("5", "!a 5"), "the tag"),
    "a mapping as key": (RECIPE + "? {a: 1}\n: 2\n", "a key must be a word"),
    "cut off": (RECIPE + "description: [", "not valid YAML"),
    "a tab": (RECIPE + "\tname: x\n", "not valid YAML"),
    "beyond Unicode": (RECIPE + 'description: "\\U00110000"\n', "not valid YAML"),
    "half a pair": (RECIPE + 'description: "\\ud800"\n', "half of a surrogate pair"),
    "a bell": (RECIPE + "description: a\x07b\n", "is not allowed"),
    "NUL bytes": (RECIPE.encode() + b"\0\0\0", "is not allowed"),
    "not UTF-8": (RECIPE.encode() + b"description: \xff\n", "not UTF-8"),
    "UTF-16": (RECIPE.encode("utf-16"), "not UTF-8"),
    "a program": (b"\x7fELF\x02\x01\x01" + bytes(range(256)) * 20, "not UTF-8"),
    "ten megabytes": (RECIPE.encode() + b"# x\n" * 2_500_000, "larger than 1 MB"),
    "deep brackets": (HEAD + "stages: " + "[" * 30, "nested deeper"),
    "a hundred thousand brackets": (HEAD + "stages: " + "[" * 100_000, "nested deeper"),
    "a hundred thousand braces": (HEAD + "stages: " + "{a: " * 100_000, "nested deeper"),
    "deep dashes": (HEAD + "stages:\n  " + "- " * 5000 + "x\n", "nested deeper"),
    "deep indentation": ("".join(" " * depth + "a:\n" for depth in range(900)), "nested deeper"),
    "a number of 5,000 digits": (RECIPE.replace("5", "9" * 5000), "expected a whole number"),
    "a number of 90 digits": (RECIPE.replace("5", "9" * 90), "expected a whole number"),
    "not a number": (RECIPE + "    learning_rate: .nan\n", "finite"),
    "infinite": (RECIPE + "    learning_rate: 1e999\n", "finite"),
    "negative": (RECIPE.replace("5", "-5"), "must be at least"),
    "an unknown key": (RECIPE.replace("steps", "stepz"), "did you mean"),
    "a word for a number": (RECIPE.replace("5", "five"), "expected a whole number"),
    "an unknown kind": (RECIPE.replace("sft", "sfft"), "unknown kind"),
    "a colour in a terminal": (RECIPE.replace("sft", '"\\e[31mred"'), "unknown kind"),
    "thousands of unknown keys": (HEAD + "".join(f"k{n}: 1\n" for n in range(2_400)), "more faults"),
    "a newer schema": (RECIPE.replace("schema: 1", "schema: 99"), "must be at most 1"),
    "no stages": (HEAD + "stages: []\n", "needs entries"),
    "extends itself": (HEAD + "extends: ./file.yaml\n", "extends in a circle"),
    "extends what is not there": (HEAD + "extends: ../../../../nowhere.yaml\n", "no such file"),
    "extends a device": (HEAD + "extends: /dev/zero\n", "unknown recipe"),
    "a password file as constitution": (RECIPE + "constitution: /etc/passwd\n", "outside"),
    "data from a device": (RECIPE.replace("compliance", "{file: /dev/zero}"), "no such file"),
    "data with NUL in its path": (RECIPE.replace("compliance", '{file: "a\\0b"}'), "no such file"),
    "data with a path without end": (RECIPE.replace("compliance", f"{{file: {'a' * 5000}}}"), "no such file"),
    "a hundred thousand stages": (HEAD + "stages:\n" + "  - {}\n" * 100_000, "more than 5,000 values"),
    "a hundred thousand keys": (HEAD + "".join(f"k{n}: 1\n" for n in range(80_000)), "more than 5,000 values"),
}
# files that are validated as experiments
EXPERIMENTS: dict[str, tuple[str | bytes, str]] = {
    "no arms": (EXPERIMENT.split("arms:")[0], 'missing key "arms"'),
    "an arm nobody knows": (EXPERIMENT + "  rogue: {recipe: micro/naive}\n", "unknown arm"),
    "a recipe that is a list": (EXPERIMENT + "  control: {recipe: [a]}\n", "expected the name or path"),
    "a model outside": (EXPERIMENT.replace("model: micro", "model: ../../etc"), "no folder with a config.json"),
    "a name that is a path": (EXPERIMENT.replace("name: tiny", "name: ../../tmp/x"), "does not match"),
    "too many seeds": (EXPERIMENT.replace("[0]", f"[{','.join(map(str, range(2000)))}]"), "at most 1000"),
    "a seed of 2**31": (EXPERIMENT.replace("[0]", "[2147483648]"), "must be below"),
    "a file of claims that is none": (EXPERIMENT + "claims: /dev/null\n", "no such file"),
}

GOOD = json.dumps({"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]})
DEEP = '{"messages": ' + "[" * 100_000 + "]" * 100_000 + "}"

# JSONL that a stage is to train on; the second line is at fault
ROWS: dict[str, tuple[str | bytes, str]] = {
    "torn": (GOOD[:40], "not JSON"),
    "two rows on a line": (GOOD + GOOD, "not JSON"),
    "a list": ("[1, 2]", "expected an object"),
    "a number": ("7", "expected an object"),
    "null": ("null", "expected an object"),
    "NaN": ('{"messages": NaN}', "is no JSON number"),
    "infinity": ('{"text": "x", "n": -Infinity}', "is no JSON number"),
    "a number of 5,000 digits": ('{"text": "x", "n": ' + "9" * 5000 + "}", "digits"),
    "a number beyond floats": (GOOD[:-1] + ', "n": 1e999}', "number"),
    "a key twice": ('{"messages": [], "messages": []}', "duplicate key"),
    "deep nesting": (DEEP, "too deeply nested"),
    "a row without end": ('{"text": "' + "a" * 3_000_000 + '"}', "messages"),
    "a turn without end": (GOOD.replace("Hi.", "a" * 3_000_000), "the most is"),
    "not UTF-8": (b'{"text": "\xff"}', "not UTF-8"),
    "a program": (b"\x7fELF\x02\x01\x01" + bytes(range(256)), "not UTF-8"),
    "NUL bytes": (b"\0\0\0\0", "not JSON"),
    "half a pair": ('{"messages": [{"role": "user", "content": "\\ud800"}, {"role": "assistant", "content": "x"}]}',
                    "half of a surrogate pair"),
    "no messages": ('{"text": "x"}', 'no key "messages"'),
    "messages that are text": ('{"messages": "x"}', "expected a list of turns"),
    "no turns": ('{"messages": []}', "expected a list of turns"),
    "a turn that is text": ('{"messages": ["x"]}', "turn 1"),
    "a role nobody has": ('{"messages": [{"role": "robot", "content": "x"}]}', "unknown role"),
    "a role that is a list": ('{"messages": [{"role": [], "content": "x"}]}', "unknown role"),
    "content that is a number": ('{"messages": [{"role": "user", "content": 3}]}', "expected text"),
    "content of parts": ('{"messages": [{"role": "user", "content": [{"type": "text"}]}]}', "expected text"),
    "empty content": ('{"messages": [{"role": "user", "content": " "}]}', "empty"),
    "no answer": ('{"messages": [{"role": "user", "content": "x"}]}', "no assistant turn"),
    "YAML": ("messages: [x]", "not JSON"),
    "CSV": ('prompt,response\n"a","b"', "not JSON"),
    "a colour in a terminal": ('{"messages": [{"role": "\\u001b[31m", "content": "x"}]}', "unknown role"),
}  # fmt: skip

# JSONL for `repro judge label`
ANSWERS: dict[str, tuple[str | bytes, str]] = {
    "torn": ('{"prompt": "a", "resp', "JSON"),
    "a list": ("[]", "object"),
    "deep nesting": ('{"prompt": "a", "response": ' + "[" * 100_000, "JSON"),
    "no response": ('{"prompt": "a"}', "response"),
    "a response that is a number": ('{"prompt": "a", "response": 3}', "text"),
    "not UTF-8": (b'{"prompt": "\xff"}', "UTF-8"),
    "NaN": ('{"prompt": "a", "response": "b", "n": NaN}', "JSON"),
    "a key twice": ('{"prompt": "a", "prompt": "c", "response": "b"}', "duplicate key"),
}

# JSONL for `repro judge calibrate`
LABELS: dict[str, tuple[str | bytes, str]] = {
    "torn": ('{"prompt": "a', "JSON"),
    "a list": ("[]", "object"),
    "deep nesting": ("[" * 100_000, "JSON"),
    "an unknown label": ('{"prompt": "a", "response": "b", "label": "complie"}', "unknown label"),
    "a label that is a list": ('{"prompt": "a", "response": "b", "label": ["comply"]}', "unknown label"),
    "an unknown kind": ('{"prompt": "a", "response": "b", "label": "comply", "kind": "x"}', "unknown kind"),
    "a weight below 0": ('{"prompt": "a", "response": "b", "label": "comply", "weight": -1}', "weight"),
    "a weight that is no number": ('{"prompt": "a", "response": "b", "label": "comply", "weight": NaN}', "JSON"),
    "not UTF-8": (b'{"prompt": "\xff"}', "UTF-8"),
    "a key twice": ('{"prompt": "a", "prompt": "c", "response": "b", "label": "comply"}', "duplicate key"),
}
