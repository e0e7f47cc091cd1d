"""The query side of a model as OpenSearch runs it: tokenizer and table in one zip."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from st_l0.encoder.queries import QueryEncoder
from st_l0.errors import InputError
from st_l0.utils.files import FileKind, replace_file

# The server's stand-in for 0: its query refuses a weight of 0, and a token that the table lacks weighs 1.
NO_WEIGHT = 1e-9
LARGEST = 64.0  # that a weight of a query may have there
_LONGEST = 1 << 20  # tokens of a query without a limit; with none in the file the server cuts at 510
_MARK = "\ufdd0"  # Unicode keeps it out of texts


def _is_archive(path: Path) -> bool:
    return zipfile.is_zipfile(path) and "tokenizer.json" in zipfile.ZipFile(path).namelist()


ARCHIVE = FileKind("an archive of a model for OpenSearch", _is_archive)


def query_archive(encoder: QueryEncoder, source: str, *, ids: bool) -> bytes:
    """Make what OpenSearch's ``SPARSE_TOKENIZE`` models consist of.

    ``tokenizer.json`` is the tokenizer as queries go through it: cut where they are cut, and without the
    special tokens around them. ``idf.json`` has the weight of every token; `NO_WEIGHT` stands for 0.

    The server names a token by decoding its id, and looks its weight up by that name. Decoders make the same
    text of many ids in SentencePiece and byte-level vocabularies; so there is none here, and the name is the
    token as the vocabulary has it. With ``ids`` the name is the id, for indexes whose features are ids: each
    id has a second token, which no text contains and which the server prefers when it decodes.

    The same query side gives the same bytes on every machine.

    Args:
        encoder: The query side.
        source: What complaints call it.
        ids: Whether the index names its features by token ids instead of tokens.

    Returns:
        A zip.

    Raises:
        InputError: The server cannot do what the encoder does: a prompt, pruned queries, a weight above 64;
            or an id of its vocabulary cannot have two tokens: a list (Unigram), or tokens that were added.

    Example:
        >>> encoder = QueryEncoder.from_pretrained("models/st-l0-mini")
        >>> archive = query_archive(encoder, "models/st-l0-mini", ids=True)
        >>> zipfile.ZipFile(io.BytesIO(archive)).namelist()
        ['tokenizer.json', 'idf.json']
    """
    if encoder.prompt:
        raise InputError(
            f"{source}: puts {encoder.prompt!r:.40} before each query, which the server does not; "
            "encode queries on the client"
        )
    if encoder.max_active_dims is not None:
        raise InputError(
            f"{source}: keeps {encoder.max_active_dims} tokens of a query, which the server does not; "
            "encode queries on the client"
        )
    if encoder.query_weights.max(initial=0) > LARGEST:
        token = int(encoder.query_weights.argmax())
        raise InputError(
            f"{source}: token {encoder.tokenizer.convert_ids_to_tokens(token)!r} weighs "
            f"{encoder.query_weights[token]:.4g}, and the server takes {LARGEST:g} at most; "
            "divide all query weights by the same number"
        )
    tokens = encoder.tokenizer
    limit = min(int(tokens.model_max_length), _LONGEST)
    tokenizer = as_served(tokens.backend_tokenizer, limit, tokens.truncation_side)
    tokenizer["post_processor"] = None
    table = _table(encoder)
    if ids:
        name_by_id(tokenizer, source)
        vocabulary = encoder.tokenizer.get_vocab()
        table = {str(vocabulary[token]): weight for token, weight in table.items()}
    files = {"tokenizer.json": json.dumps(tokenizer, ensure_ascii=False), "idf.json": json.dumps(table)}
    return pack({name: text.encode() for name, text in files.items()})


def write_query_archive(encoder: QueryEncoder, output: str | Path, source: str, *, ids: bool) -> None:
    """Write a `query_archive` to a file; an earlier one is replaced.

    Raises:
        InputError: See `query_archive`; or ``output`` is something else.
    """
    archive = query_archive(encoder, source, ids=ids)
    with replace_file(output, ARCHIVE) as new:
        new.write_bytes(archive)
        new.chmod(0o644)  # a server's user may read it, whatever the umask


def as_served(tokenizer: Tokenizer, limit: int, side: str) -> dict[str, Any]:
    """The JSON form of a tokenizer that cuts texts, pads none, and decodes an id to its bare token."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_padding()
    copy.enable_truncation(limit, direction=side)
    served: dict[str, Any] = json.loads(copy.to_str())
    return served | {"decoder": None}


def pack(files: Mapping[str, bytes]) -> bytes:
    """A zip that any user may read, equal for equal files: stored, as what is compressed differs."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as zipped:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o100644 << 16  # the server is another user
            zipped.writestr(entry, content)
    return archive.getvalue()


def _table(encoder: QueryEncoder) -> dict[str, float]:
    weights = encoder.query_weights
    table = {}
    for token, row in sorted(encoder.tokenizer.get_vocab().items(), key=lambda item: item[1]):
        weight = weights[row] if row < len(weights) else np.float32(0)
        # The shortest number that is this float32 again.
        table[token] = float(str(weight)) if weight > NO_WEIGHT else NO_WEIGHT
    return table


def name_by_id(tokenizer: dict[str, Any], source: str) -> None:
    """Make the decoder give the id as text; special tokens go on being decoded to nothing."""
    vocabulary = tokenizer["model"].get("vocab")
    if not isinstance(vocabulary, dict):
        raise InputError(
            f"{source}: its tokenizer ({tokenizer['model'].get('type')}) cannot name tokens by their ids; "
            "make the index with tokens as names"
        )
    added = tokenizer["added_tokens"]
    if plain := [
        token["content"] for token in added if not token["special"]
    ]:  # found in texts by one name only
        raise InputError(
            f"{source}: the token {plain[0]!r:.40} was added to its tokenizer, which then cannot name tokens "
            "by their ids; make the index with tokens as names"
        )
    options = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    for row in sorted(set(vocabulary.values()) - {token["id"] for token in added}):
        vocabulary[f"{_MARK}{row}"] = row
        added.append({"id": row, "content": f"{_MARK}{row}", **options})
    tokenizer["decoder"] = {"type": "Replace", "pattern": {"String": _MARK}, "content": ""}
