"""Ways in which inputs are malformed. Each takes a random generator and the path of what it spoils.

It returns a word on what it did, and whether what a command makes of the input may differ from what it makes of
the clean one: ``SAME`` where a command refuses it or gives what it gave (harmless spellings, and damage that must
not go unseen), ``OTHER`` where another input was made, which is as good (another text, another weight).
"""

import copy
import gzip
import json
import math
import zipfile
from pathlib import Path

SAME, OTHER = "same", "other"

VALUES = [
    None, True, False, 0, -1, 1, 1.0, 2.5, 10**400, math.nan, math.inf, -1e308, "", " ", "x", "1", "nan", "\0",
    "\x1b[31mred\x1b[0m", "\x9b2J", "a\nb", "a\tb", "\u202eabc\u2066", "[red]x[/red] :fire: [/]", "\ud800", "日本",
    "x" * 3000, "~/x", "../../etc/passwd", "$HOME", "gs://bucket/x", [], [None], ["a", "b"], [[]], [1, 2], {},
    {"a": 1}, {"": ""}, [[["deep"]]], {"a": {"b": {"c": [1]}}},
]  # fmt: skip
NAMES = ["id", "_id", "docid", "text", "Text", "contents", "query", "queries", "positive", "pos", "neg", "negs",
         "negatives", "negative_1", "scores", "label", "documents", "document_ids", "types", "", "\x1b[2J",
         "a b", "日本"]  # fmt: skip


def value(rng):
    return copy.deepcopy(rng.choice(VALUES))


# Any file, by its bytes.


def _cut(rng, raw):
    return raw[: rng.randrange(len(raw))] if raw else raw


def _flip(rng, raw):
    if not raw:
        return b"\0"
    place = rng.randrange(len(raw))
    return raw[:place] + bytes([raw[place] ^ rng.randrange(1, 256)]) + raw[place + 1 :]


def _noise(rng, raw):
    place = rng.randrange(len(raw) + 1)
    return raw[:place] + rng.randbytes(rng.choice([1, 4, 64])) + raw[place:]


def _zeros(rng, raw):
    place, size = rng.randrange(len(raw) + 1), rng.choice([1, 16, 512])
    return raw[:place] + bytes(size) + raw[place + size :]


def _twice(rng, raw):
    return raw + raw


BYTES = {
    "cut": _cut,
    "byte flipped": _flip,
    "bytes put in": _noise,
    "zeros over it": _zeros,
    "twice": _twice,
    "emptied": lambda rng, raw: b"",
    "noise instead": lambda rng, raw: rng.randbytes(rng.choice([1, 100, 5000])),
    "UTF-16": lambda rng, raw: raw.decode("utf-8", "replace").encode("utf-16"),
    "Latin-1 in it": lambda rng, raw: raw.replace(b"a", b"\xe9", 1),
    "control characters in it": lambda rng, raw: raw.replace(b"a", b"\x1b[2J\x07", 1),
    "gzip": lambda rng, raw: gzip.compress(raw, mtime=0),
    "gzip, cut": lambda rng, raw: gzip.compress(raw, mtime=0)[:-9],
    "git-lfs": lambda rng, raw: (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    ),
    "HTML": lambda rng, raw: b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>\n",
    "JSON, another": lambda rng, raw: json.dumps(value(rng)).encode(),
    "deep": lambda rng, raw: b"[" * 100_000,
    "a huge number": lambda rng, raw: b"1" * 5000,
}


def spoil_bytes(rng, path):
    name = rng.choice(sorted(BYTES))
    path.write_bytes(BYTES[name](rng, path.read_bytes()))
    return name


def _as_folder(rng, path):
    path.unlink()
    path.mkdir()


def _as_loop(rng, path):
    path.unlink()
    path.symlink_to(path.name)


def _as_dangling(rng, path):
    path.unlink()
    path.symlink_to("nowhere")


def _as_zip(rng, path):
    raw = path.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(path.name, raw)


def _as_parquet(rng, path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: [value(rng) if rng.random() < 0.1 else "x"] for name in ("_id", "text")}
    try:
        pq.write_table(pa.table(columns), path)
    except (pa.ArrowException, UnicodeError, OverflowError):
        path.write_bytes(b"PAR1PAR1")


KINDS = {
    "folder instead": _as_folder,
    "link to itself": _as_loop,
    "link to nowhere": _as_dangling,
    "zip": _as_zip,
    "parquet": _as_parquet,
    "removed": lambda rng, path: path.unlink(),
}


def spoil_file(rng, path):
    """A file as bytes, or as no file at all."""
    if rng.random() < 0.25:
        name = rng.choice(sorted(KINDS))
        KINDS[name](rng, path)
        return name
    return spoil_bytes(rng, path)


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


# JSON files and YAML files.


def spoil_json(rng, path):
    """A file that holds one JSON value: a key set, lost or added, at any depth."""
    content = json.loads(path.read_text(encoding="utf-8"))
    holders = list(_holders(content))
    if not holders:
        path.write_text(json.dumps(value(rng)))
        return "another value"
    holder = rng.choice(holders)
    keys = list(holder) if isinstance(holder, dict) else range(len(holder))
    key = rng.choice(list(keys))
    action = rng.choice(["set", "lost", "added"])
    if action == "lost":
        del holder[key]
    elif action == "set" or isinstance(holder, list):
        holder[key] = value(rng)
    else:
        holder[rng.choice(NAMES)] = value(rng)
    path.write_text(json.dumps(content), encoding="utf-8")
    return f"{str(key)[:30]!r} {action}"


def _holders(content):
    if isinstance(content, (dict, list)) and content:
        yield content
        for entry in list(content.values() if isinstance(content, dict) else content)[:200]:
            yield from _holders(entry)


_YAML = [
    "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "---\n- 1\n---\n- 2\n", "!!python/object:os.system [ls]\n",
    "\t- tab\n", "key: [unclosed\n", "{}\n", "[]\n", "null\n", "- a\n- b\n", "just text\n", "a: *unknown\n",
    "? [complex]\n: key\n", "2020-13-45\n", "a: 0o9\nb: 1_000\nc: .inf\nd: 12:30:45\n", "%YAML 9.9\n---\na: 1\n",
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
    holders = [holder for holder in _holders(content) if isinstance(holder, dict)]
    holder = rng.choice(holders)
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
            "num_train_epochs", "hub_token", "report_to", "dataloader_num_workers", "run_name", "seed"]  # fmt: skip


# Folders whose files belong together: damage has to be seen.


def spoil_folder(rng, folder, *, weights=(".safetensors",), texts=(".json", ".txt", ".md", ".jinja")):
    """One file of a folder; what a folder without checksums cannot show is OTHER."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = rng.choice(files)
    name = str(path.relative_to(folder))
    kind = rng.random()
    if kind < 0.1:
        other = rng.choice(files)
        path.write_bytes(other.read_bytes())
        return f"{name}: another file in its place", OTHER if path.suffix == other.suffix else SAME
    if kind < 0.2:
        path.rename(path.with_name(f"{path.name}.bak"))
        return f"{name}: renamed", SAME
    if kind < 0.3:
        path.unlink()
        return f"{name}: removed", SAME
    if path.suffix == ".json" and kind < 0.6:
        return f"{name}: {spoil_json(rng, path)}", OTHER
    if path.suffix in weights and kind < 0.7:
        return f"{name}: {spoil_tensors(rng, path)}"[:200], SAME
    did = spoil_file(rng, path)
    seen = path.suffix not in (*weights, *texts) or did in KINDS
    return f"{name}: {did}", SAME if seen else OTHER


def spoil_tensors(rng, path):
    """A file of weights: a tensor lost, renamed, of another type or shape, or not finite."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    name = rng.choice(sorted(tensors))
    action = rng.choice(["lost", "renamed", "of integers", "cut", "turned", "NaN", "empty"])
    tensor = tensors.pop(name)
    changed = {
        "renamed": lambda: {f"x.{name}": tensor},
        "of integers": lambda: {name: tensor.to(torch.int32)},
        "cut": lambda: {name: tensor[:-1].clone()},
        "turned": lambda: {name: tensor.unsqueeze(0).clone()},
        "NaN": lambda: {name: torch.full_like(tensor, math.nan)},
        "empty": lambda: {name: tensor[:0].clone()},
    }.get(action, dict)
    save_file({**tensors, **changed()}, path, metadata={"format": "pt"})
    return f"{name} {action}"


def spoil_sealed(rng, folder):
    """A folder with checksums: whatever happens to it, it is refused or as good as before."""
    name, _ = spoil_folder(rng, folder, weights=(), texts=())
    return name, SAME


# Names.


def spoil_name(rng, path):
    """The path itself: another name for the same thing, or for nothing."""
    names = [
        "\x1b[31mred",
        "a\nb",
        "a\tb",
        "\u202egnp",
        "[bold]",
        "a b",
        "-x",
        "日本",
        "a'b\"c",
        "%s{x}",
        "x:y",
        ":fire:",
    ]
    new = path.with_name(rng.choice(names) + "".join(path.suffixes))
    path.rename(new)
    return new


def nowhere(rng, folder):
    """A path, from the folder above, at which there is nothing that can be read."""
    (folder / "file").write_text("x")
    (folder / "empty").mkdir()
    (folder / "loop").symlink_to("loop")
    return rng.choice([
        "nothing", "no/such/file.jsonl", "", " ", ".", "/", "in/file/below", "in/loop", "in/empty", "x" * 300, "x/" * 2500,
        "\x1b[31mred", "a\nb.jsonl", "\u202ex.jsonl", "\udcff.jsonl", "/dev/null", "/dev/full", "~", "~nobody/x",
        "s3://bucket/x", "gs://bucket/x", "http://[", "opensearch://localhost:1/x", "-", "--", "file://x", "C:\\x",
        "owner/name", "a/b/c", "nothing.jsonl", "nothing.jsonl.gz", "nothing.parquet", "nothing.yaml", "*", "[", "%",
    ])  # fmt: skip
