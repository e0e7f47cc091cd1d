"""Ways in which texts with a form of their own are malformed: rows, tables, YAML. See `mutations`."""

import copy
import json

from mutations import NAMES, OTHER, SAME, holders, spoil_file, value

# Text files.

HARMLESS = {
    "BOM": lambda raw: b"\xef\xbb\xbf" + raw,
    "CRLF": lambda raw: raw.replace(b"\n", b"\r\n"),
    "no last line end": lambda raw: raw.removesuffix(b"\n"),
}


def spell_otherwise(rng, path):
    name = rng.choice(sorted(HARMLESS))
    path.write_bytes(HARMLESS[name](path.read_bytes()))
    return name, SAME


# Rows of JSON lines.


def _set(rng, entries):
    entry = rng.choice(entries)
    key = rng.choice(sorted(entry))
    entry[key] = value(rng)
    return f"{key} set", OTHER


def _set_all(rng, entries):
    key, new = rng.choice(sorted(entries[0])), value(rng)
    for entry in entries:
        entry[key] = new
    return f"{key} set in all", OTHER


def _drop(rng, entries):
    key, one = rng.choice(sorted(entries[0])), rng.random() < 0.5
    for entry in [rng.choice(entries)] if one else entries:
        entry.pop(key)
    return f"{key} dropped", OTHER


def _rename(rng, entries):
    key, new = rng.choice(sorted(entries[0])), rng.choice(NAMES)
    for entry in entries:
        entry[new] = entry.pop(key)
    return f"{key} renamed {new!r}", OTHER


def _add(rng, entries):
    key = rng.choice(NAMES)
    for entry in [rng.choice(entries)] if rng.random() < 0.5 else entries:
        entry[key] = value(rng)
    return f"{key!r} set or added", OTHER


def _repeat(rng, entries):
    entries.insert(rng.randrange(len(entries)), copy.deepcopy(rng.choice(entries)))
    return "a row twice", OTHER


def _swap(rng, entries):
    entries[rng.randrange(len(entries))] = value(rng)
    return "a row that is none", OTHER


def _unrelated(rng, entries):
    for entry in entries:
        entry["metadata"] = {"a": [1, None, "\x1b[2J"]}
    return "metadata added", SAME


def _key_order(rng, entries):
    entries[:] = [dict(reversed(entry.items())) for entry in entries]
    return "keys in another order", SAME


ROWS = [_set, _set, _set, _set_all, _drop, _rename, _add, _repeat, _swap, _unrelated, _key_order]


def _blank_lines(rng, text):
    return text.replace("\n", "\n\n"), "blank lines", SAME


def _escaped(rng, text):
    entries = [json.loads(line) for line in text.splitlines()]
    return "".join(json.dumps(entry, indent=None) + "\n" for entry in entries), "escapes", SAME


def _array(rng, text):
    return json.dumps([json.loads(line) for line in text.splitlines()]), "one array", OTHER


def _indented(rng, text):
    return json.dumps(json.loads(text.splitlines()[0]), indent=2), "indented", OTHER


def _single_quotes(rng, text):
    return text.replace('"', "'"), "single quotes", OTHER


def _repeated_key(rng, text):
    return text.replace("{", '{"text": "first", ', 1), "a key twice", OTHER


def _one_line(rng, text):
    return text.replace("\n", " "), "all in one line", OTHER


LINES = [_blank_lines, _escaped, _array, _indented, _single_quotes, _repeated_key, _one_line]


def spoil_rows(rng, path):
    """A file of JSON lines."""
    kind = rng.random()
    if kind < 0.25:
        return spoil_file(rng, path), OTHER
    if kind < 0.35:
        return spell_otherwise(rng, path)
    text = path.read_text(encoding="utf-8")
    if kind < 0.5:
        text, name, effect = rng.choice(LINES)(rng, text)
    else:
        entries = [json.loads(line) for line in text.splitlines()]
        name, effect = rng.choice(ROWS)(rng, entries)
        text = "".join(json.dumps(entry) + "\n" for entry in entries)
    path.write_text(text, encoding="utf-8")
    return name, effect


# Tables.


def spoil_table(rng, path):
    """A file of tab-separated judgements."""
    kind = rng.random()
    if kind < 0.2:
        return spoil_file(rng, path), OTHER
    if kind < 0.3:
        return spell_otherwise(rng, path)
    table = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    if kind < 0.6:
        row = rng.choice(table)
        row[rng.randrange(len(row))] = str(value(rng)).replace("\ud800", "?")
        name = "a field set"
    elif kind < 0.7:
        del rng.choice(table)[0]
        name = "a field lost"
    elif kind < 0.8:
        del table[0]
        name = "no header"
    elif kind < 0.9:
        table = [[row[0], "0", row[1], row[2]] for row in table[1:]]
        name = "TREC"
    else:
        table = [[",".join(row)] for row in table]
        name = "commas"
    path.write_text("".join("\t".join(row) + "\n" for row in table), encoding="utf-8")
    return name, OTHER


# YAML.

_YAML = [
    "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "---\n- 1\n---\n- 2\n", "!!python/object:os.system [ls]\n",
    "\t- tab\n", "key: [unclosed\n", "{}\n", "[]\n", "null\n", "- a\n- b\n", "just text\n", "a: *unknown\n",
    "? [complex]\n: key\n", "2020-13-45\n", "a: 0o9\nb: 1_000\nc: .inf\nd: 12:30:45\n",
    "%YAML 9.9\n---\na: 1\n",
    "a: \x07\n", "<<: [1]\n", "a: !!binary x\n", "a: !!int x\n", "'\n", "a: 'x\x85y'\n",
]  # fmt: skip
_BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))


def spoil_yaml(rng, path):
    """A recipe or a sweep."""
    import yaml

    kind = rng.random()
    text = path.read_text(encoding="utf-8")
    if kind < 0.15:
        return spoil_file(rng, path), OTHER
    if kind < 0.25:
        return spell_otherwise(rng, path)
    if kind < 0.35:
        path.write_text(rng.choice(["", text]) + rng.choice([*_YAML, _BOMB]), encoding="utf-8")
        return "YAML that is none", OTHER
    content = yaml.safe_load(text)
    holder = rng.choice([holder for holder in holders(content) if isinstance(holder, dict)])
    key = rng.choice(sorted(holder))
    if kind < 0.75:
        holder[key] = value(rng)
        name = f"{key} set"
    elif kind < 0.85:
        del holder[key]
        name = f"{key} lost"
    else:
        new = rng.choice([*NAMES, *TRAINING])
        holder[new] = value(rng)
        name = f"{new!r} added"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return name, OTHER


TRAINING = ["warmup_ratio", "optim", "optim_args", "fsdp", "deepspeed", "bf16", "fp16", "save_steps",
            "eval_strategy", "logging_steps", "resume_from_checkpoint", "batch_sampler", "lr_scheduler_type",
            "num_train_epochs", "hub_token", "report_to", "dataloader_num_workers", "run_name",
            "seed"]  # fmt: skip
