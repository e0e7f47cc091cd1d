"""Search results, for people and for scripts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.text import Text

from st_l0.cli.app import say
from st_l0.utils.terminal import cell, is_terminal, open_console, to_json

if TYPE_CHECKING:
    from st_l0.encoder.queries import QueryEncoder
    from st_l0.encoder.sparse_encoder import SparseEncoder
    from st_l0.index import Hit, Index


_WORD = Text(" (word)", "dim")


def print_hits(
    model: QueryEncoder | SparseEncoder,
    index: Index,
    query: str,
    k: int,
    *,
    bm25: float = 0.0,
    explain: bool = False,
    as_json: bool = False,
) -> bool:
    """Search and print; False, and nothing printed, for a query without a known word.

    ``bm25`` is how much BM25 counts beside the model; above 0, a word is known if a document has it.

    As JSON it is one line ``{"query": …, "hits": [{"rank", "id", "score", "text"}]}``: ids as the index has
    them, strings or integers; ``text`` is null where the index stores none. ``explain`` adds ``"tokens"`` to
    each hit, ``[{"token", "score", "query", "document"}]``, and with ``bm25`` ``"words"``, ``[{"word", …}]``;
    all these scores sum to the hit's.
    """
    vectors = model.encode_query([query], convert_to_scipy=True)
    if not vectors.nnz and not bm25:
        return False

    def parts_of(hit: Hit) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {"tokens": [], "words": []} if bm25 else {"tokens": []}
        parts = index.explain(vectors, hit.id, text=query if bm25 else None, bm25=bm25)
        for part, (left, right) in parts.items():
            numbers = {"score": float(left * right), "query": float(left), "document": float(right)}
            if isinstance(part, str):
                found["words"].append({"word": part} | numbers)
            else:
                token = str(model.tokenizer.convert_ids_to_tokens(part))
                found["tokens"].append({"token": token} | numbers)
        return found

    hits = index.search(vectors, k=k, texts=[query] if bm25 else None, bm25=bm25)[0]
    if not hits and not vectors.nnz:
        return False
    if as_json:
        found = [
            {"rank": rank, "id": hit.id, "score": float(hit.score), "text": hit.text}
            | (parts_of(hit) if explain else {})
            for rank, hit in enumerate(hits, start=1)
        ]
        say(to_json({"query": query, "hits": found}))
        return True
    console, whole = open_console(), not is_terminal(sys.stdout)  # in a terminal, one line a document

    def show(line: Text) -> None:
        console.print(line, soft_wrap=whole, no_wrap=True, overflow="ellipsis")

    if not hits:
        console.print("no document has a word of this query")
    for rank, hit in enumerate(hits, start=1):
        start = f"{rank:>3} {hit.score:>9.4f}  "
        show(Text.assemble(start, cell(hit.id, "bold"), "  ", cell(_snippet(hit.text), "dim")))
        for kind, found in parts_of(hit).items() if explain else ():
            for part in found:
                numbers = f"    {part['score']:>9.4f}  = {part['query']:.4f} × {part['document']:.4f}  "
                name = cell(part["token"]) if kind == "tokens" else Text.assemble(cell(part["word"]), _WORD)
                show(Text.assemble(numbers, name))
    return True


def _snippet(text: str | None) -> str:
    return " ".join((text or "")[:1000].split())[:200]
