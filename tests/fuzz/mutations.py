"""Ways in which inputs are malformed. Each takes a random generator and the path of what it spoils.

It returns a word on what it did, and whether what a command makes of the input may differ from what it makes
of the clean one: ``SAME`` where a command has to refuse it or give what it gave (harmless spellings,
damage that
must not go unseen), ``OTHER`` where another input was made, which is as good (another text, another weight).
"""

import copy
import gzip
import json
import math
import zipfile

SAME, OTHER = "same", "other"

VALUES = [
    None, True, False, 0, -1, 1, 1.0, 2.5, 10**400, math.nan, math.inf, -1e308, "", " ", "x", "1", "nan",
    "\0",
    "\x1b[31mred\x1b[0m", "\x9b2J", "a\nb", "a\tb", "\u202eabc\u2066", "[red]x[/red] :fire: [/]", "\ud800",
    "日本",
    "x" * 3000, "~/x", "../../etc/passwd", "$HOME", "gs://bucket/x", [], [None], ["a", "b"], [[]], [1, 2], {},
    {"a": 1}, {"": ""}, [[["deep"]]], {"a": {"b": {"c": [1]}}},
]  # fmt: skip
NAMES = ["id", "_id", "docid", "text", "Text", "contents", "query", "queries", "positive", "pos", "neg",
         "negs",
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


# JSON files.


def spoil_json(rng, path):
    """A file that holds one JSON value: a key set, lost or added, at any depth."""
    content = json.loads(path.read_text(encoding="utf-8"))
    found = list(holders(content))
    if not found:
        path.write_text(json.dumps(value(rng)))
        return "another value"
    holder = rng.choice(found)
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


def holders(content):
    if isinstance(content, (dict, list)) and content:
        yield content
        for entry in list(content.values() if isinstance(content, dict) else content)[:200]:
            yield from holders(entry)


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
        "nothing", "no/such/file.jsonl", "", " ", ".", "/", "in/file/below", "in/loop", "in/empty",
        "x" * 300, "x/" * 2500,
        "\x1b[31mred", "a\nb.jsonl", "\u202ex.jsonl", "\udcff.jsonl", "/dev/null", "/dev/full", "~",
        "~nobody/x",
        "s3://bucket/x", "gs://bucket/x", "http://[", "opensearch://localhost:1/x", "-", "--", "file://x",
        "C:\\x",
        "owner/name", "a/b/c", "nothing.jsonl", "nothing.jsonl.gz", "nothing.parquet", "nothing.yaml", "*",
        "[", "%",
    ])  # fmt: skip
