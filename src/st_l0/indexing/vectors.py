"""Encoded documents, and queries beside them, written for other engines."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from st_l0.errors import InputError
from st_l0.indexing.formats import Format, Vector, format_of
from st_l0.indexing.identity import check_encoded
from st_l0.indexing.shards import read_shards
from st_l0.utils.batches import batched
from st_l0.utils.files import check_folder, hold_folder, replace_folder
from st_l0.utils.paths import is_address, local_name
from st_l0.utils.progress import show_progress
from st_l0.utils.terminal import printable

if TYPE_CHECKING:
    from st_l0.data import Document
    from st_l0.encoder.sparse_encoder import SparseEncoder

GUIDE = "README.md"
_SMALLEST = np.finfo(np.float32).tiny  # engines refuse less; no score shows the difference
_BATCH = 2048  # queries


@dataclass
class Written:
    """What was written.

    Attributes:
        format: How.
        documents: All documents.
        empty: Those without weights, which nothing finds.
        queries: All queries.
        empty_queries: Those without weights, which were left out.
        spaced_ids: Ids, of documents and of queries, that hold white space.
        terms: Tokens that weigh in a document.
    """

    format: Format
    documents: int = 0
    empty: int = 0
    queries: int = 0
    empty_queries: int = 0
    spaced_ids: int = 0
    terms: int = 0

    def notes(self) -> list[str]:
        """What a user should know of these vectors, a sentence each."""
        scale = self.format.scale
        found = []
        if scale is not None:
            found.append(
                f"weights are rounded to whole hundredths and scores are {scale * scale:,} times the model's"
            )
        if self.empty:
            lost = "are not in the engine's index" if self.format.drops_empty else "are found by no query"
            found.append(f"documents without weights, which {lost}: {self.empty:,} of {self.documents:,}")
        if self.empty_queries:
            found.append(
                "queries without weights, which find nothing and are left out (an average counts them as 0): "
                f"{self.empty_queries:,} of {self.queries:,}"
            )
        if self.spaced_ids and self.format.spaceless_ids:
            found.append(
                "ids with white space, which divides the columns of the engine's run files: "
                f"{self.spaced_ids:,}"
            )
        return found


def check_target(output: str | Path, format: str, inputs: Iterable[str | Path] = ()) -> Path:
    """Refuse a folder that `write_vectors` would refuse, before a model is loaded.

    Raises:
        InputError: It holds something else than vectors in this format, or nothing can be written there; or
            there is no such format.
    """
    return check_folder(output, _kind(format_of(format)), inputs=inputs)


def write_vectors(
    model: SparseEncoder,
    encoded: str | Path,
    output: str | Path,
    format: str,
    *,
    name: str | Path,
    queries: Iterable[Document] = (),
    progress: bool = True,
) -> Written:
    """Write documents that were encoded, and queries, as another engine reads them.

    The folder gets the documents in their order, the queries, the settings of the engine's index, and
    ``README.md``, which says how to index and to search, and what differs then from exact scores. A number is
    the shortest decimal that is its float32 again.

    Args:
        model: The encoder of the documents; it encodes the queries.
        encoded: What `st_l0.indexing.encode.encode_corpus` wrote.
        output: Folder, new, empty or of the same format, which is replaced.
        format: One of `st_l0.indexing.formats.FORMATS`.
        name: Folder or Hub id of the model, for the guide.
        queries: Ids and texts.
        progress: Whether to show progress, see `st_l0.utils.progress`.

    Raises:
        InputError: ``output`` holds something else; the documents were encoded by a model of other weights,
            not to the end, or a shard is damaged; an id occurs twice, or is none for the engine; or a weight
            is negative.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from st_l0 import SparseEncoder
        >>> from st_l0.data import Document
        >>> from st_l0.indexing import encode_corpus
        >>> name = "models/st-l0-mini"
        >>> model = SparseEncoder.from_pretrained(name, device="cpu")
        >>> options = {"name": name, "progress": False}
        >>> with TemporaryDirectory() as folder:
        ...     encode_corpus(model, [Document("a", "Rain falls.")], folder, **options)
        ...     output = Path(folder, "anserini")
        ...     asked = [Document("q", "rain")]
        ...     done = write_vectors(model, folder, output, "anserini", queries=asked, **options)
        ...     (output / "queries.tsv").read_text().split().count("4542")  # rain weighs 5.64
        1
        564
    """
    form = format_of(format)
    record = check_encoded(model, encoded)
    done = Written(form)
    with (
        hold_folder(output, _kind(form), inputs=[encoded]) as target,
        replace_folder(target, _kind(form)) as folder,
        show_progress(f"writing {form.name}", record["documents"], unit="documents", shown=progress) as bar,
    ):
        terms, by_token = _terms(model, form, record["vocabulary_size"])
        weighing = np.zeros(len(terms), dtype=bool)
        hashes = array("q")
        for number, (some, vectors) in enumerate(read_shards(encoded)):
            path = folder / form.documents.format(number)
            path.parent.mkdir(exist_ok=True)
            matrix = _as_written(vectors, form)
            weighing[matrix.indices] = True
            with path.open("a", encoding="ascii", newline="\n") as file:
                for (id, text), vector in zip(some, _vectors(matrix, terms), strict=True):
                    file.write(form.document(id, text, vector) + "\n")
                    done.empty += not vector.terms
            hashes.extend(hash(one.id) for one in some)
            done.documents += len(some)
            done.spaced_ids += sum(_is_spaced(one.id) for one in some)
            bar.update(len(some))
        _refuse_doubled(hashes, encoded)
        done.terms = int(weighing.sum())
        with (folder / form.queries).open("w", encoding="utf-8", newline="\n") as file:
            for some in batched(queries, _BATCH):
                matrix = model.encode_query([query.text for query in some], convert_to_scipy=True)
                for (id, text), vector in zip(some, _vectors(_as_written(matrix, form), terms), strict=True):
                    if vector.terms:
                        file.write(form.query(id, text, vector) + "\n")
                    done.empty_queries += not vector.terms
                    done.spaced_ids += _is_spaced(id)
                done.queries += len(some)
        if not done.queries:
            (folder / form.queries).unlink()
        for file_name, settings in form.settings.items():
            (folder / file_name).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        facts = {"model": _shown(name), "fingerprint": record["fingerprint"], "by_token": by_token}
        (folder / GUIDE).write_text(_guide(done, facts), encoding="utf-8")
    return done


def _kind(form: Format) -> str:
    return f"{form.name} vectors"


def _shown(name: str | Path) -> str:
    """The name of a model without the places of this machine."""
    local = Path(local_name(name))
    return local.resolve().name if local.exists() and not is_address(name) else str(name)


def _is_spaced(id: str) -> bool:
    return any(map(str.isspace, id))


def _terms(model: SparseEncoder, form: Format, size: int) -> tuple[list[str], bool]:
    """What each token is called, and whether that is the token itself.

    A vocabulary's tokens are distinct, unlike the texts that they are decoded to; but a model's head may have
    more rows than there are tokens.
    """
    if form.by_token:
        tokens = {id: token for token, id in model.tokenizer.get_vocab().items() if id < size}
        if len(tokens) == size:
            return [json.dumps(tokens[id])[1:-1] for id in range(size)], True
    return list(map(str, range(size))), False


def _as_written(matrix: sp.csr_matrix, form: Format) -> sp.csr_matrix:
    """Weights as the format has them, without those that are 0 there.

    Raises:
        InputError: One is negative.
    """
    if matrix.data.min(initial=0) < 0:
        raise InputError(f"a weight is negative ({matrix.data.min():.4g}); {form.engine} keeps those above 0")
    data = matrix.data
    if form.scale is not None:
        data = np.rint(data.astype(np.float64) * form.scale)
    kept = data >= (_SMALLEST if form.scale is None else 1)
    if kept.all():
        return sp.csr_matrix((data, matrix.indices, matrix.indptr), shape=matrix.shape)
    ends = np.concatenate([[0], np.cumsum(kept)])[matrix.indptr]
    return sp.csr_matrix((data[kept], matrix.indices[kept], ends), shape=matrix.shape)


def _vectors(matrix: sp.csr_matrix, terms: list[str]) -> Iterator[Vector]:
    import pyarrow as pa

    # The shortest decimals that give each float32 back; as Python's they would be doubles of 17 digits.
    kind = pa.float32() if matrix.dtype == np.float32 else pa.int64()
    weights = pa.array(matrix.data).cast(kind).cast(pa.string()).to_pylist()
    tokens = [terms[token] for token in matrix.indices.tolist()]
    for start, stop in pairwise(matrix.indptr.tolist()):
        yield Vector(tokens[start:stop], weights[start:stop])


def _refuse_doubled(hashes: array[int], encoded: str | Path) -> None:
    """Refuse documents of one id: engines keep both, or the last one."""
    values, counts = np.unique(np.frombuffer(hashes, np.int64), return_counts=True)
    suspects = set(values[counts > 1].tolist())  # or two ids share a hash
    seen: set[str] = set()
    for shard in read_shards(encoded) if suspects else ():
        for id in shard.ids:
            if hash(id) in suspects and id in seen:
                raise InputError(f"{encoded}: id {id!r:.60} occurs twice; encode a corpus of distinct ids")
            if hash(id) in suspects:
                seen.add(id)


def _guide(done: Written, facts: dict[str, Any]) -> str:
    import jinja2

    folder = Path(__file__).parent / "guides"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["printable"] = printable
    template = environment.get_template(f"{done.format.name}.md.jinja")
    return template.render(done=done, form=done.format, **facts)
