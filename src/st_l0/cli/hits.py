"""Search results for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from st_l0.encoder.queries import QueryEncoder
    from st_l0.encoder.sparse_encoder import SparseEncoder
    from st_l0.index import Index


def print_hits(model: QueryEncoder | SparseEncoder, index: Index, query: str, k: int, explain: bool) -> bool:
    """Search and print; False for a query without a known word."""
    vectors = model.encode_query([query], convert_to_scipy=True)
    if not vectors.nnz:
        return False
    console = Console(highlight=False)
    whole = not console.is_terminal  # in a terminal, one line a document

    def show(*parts: tuple[str, str]) -> None:
        console.print(Text.assemble(*parts), soft_wrap=whole, no_wrap=True, overflow="ellipsis")

    hits = index.search(vectors, k=k)[0]
    if not hits:
        console.print("no document has a word of this query")
    for rank, hit in enumerate(hits, start=1):
        show(
            (f"{rank:>3} {hit.score:>9.4f}  ", ""),
            (_printable(str(hit.id)), "bold"),
            (f"  {_snippet(hit.text)}", "dim"),
        )
        if explain:
            for token, (left, right) in index.explain(vectors, hit.id).items():
                name = _printable(str(model.tokenizer.convert_ids_to_tokens(token)))
                show((f"    {left * right:>9.4f}  = {left:.4f} × {right:.4f}  {name}", ""))
    return True


def _snippet(text: str | None) -> str:
    return _printable(" ".join((text or "")[:1000].split()))[:200]


def _printable(text: str) -> str:
    """Without control characters, which would be commands to the terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)
