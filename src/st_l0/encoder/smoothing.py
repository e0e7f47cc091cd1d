"""Document frequencies as weights: the IDF of a corpus, and of a small one together with a larger one's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from st_l0.encoder.punctuation import punctuation_ids
from st_l0.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GENERAL_DOCUMENTS = 3000
FEW_DOCUMENTS = 10_000
"""Below this the mean with MS MARCO's table found more than the own one: ``docs/which-idf.md``."""


def idf(frequencies: np.ndarray, documents: int) -> np.ndarray:
    """Weigh tokens by rarity: ``log(1 + (N - df + 0.5) / (df + 0.5))``, as BM25 does in Lucene.

    Always above 0. This is the formula behind the published table for MS MARCO (N = 8,841,823): solved for
    ``df`` it gives whole numbers for every weight of that table, which other usual forms do not. (The table
    lists tokens that never occur at 1; the formula gives them the largest weight, ``log(2 * (N + 1))``.)

    Args:
        frequencies: Number of documents with each token, ``(vocabulary,)``.
        documents: Number of documents N, at least 1.

    Returns:
        Weights, float32, ``(vocabulary,)``.

    Raises:
        InputError: ``documents`` is below 1, or a frequency is not within ``[0, documents]``.
    """
    if documents < 1 or (frequencies.size and (frequencies.min() < 0 or frequencies.max() > documents)):
        raise InputError(
            f"document frequencies do not fit {documents} documents; count both on the same corpus"
        )
    rarity = (documents - frequencies + 0.5) / (frequencies + 0.5)
    weights: np.ndarray = np.log1p(rarity).astype(np.float32)
    return weights


def smooth_idf(
    frequencies: np.ndarray,
    documents: int,
    tokenizer: PreTrainedTokenizerBase,
    *,
    unseen: float | None = 1.0,
    general: np.ndarray | None = None,
    general_documents: int = GENERAL_DOCUMENTS,
    punctuation: bool = False,
) -> np.ndarray:
    """Query weights out of the document frequencies of a corpus; special tokens weigh 0.

    With ``general`` a weight is the mean of the corpus's own, ``w``, and the general one, ``g``::

        (documents * w + general_documents * g) / (documents + general_documents)

    Args:
        frequencies: Number of documents with each token, ``(vocabulary,)``; see `document_frequencies`.
        documents: Number of documents.
        tokenizer: Whose tokens they are.
        unseen: Own weight of tokens that no document has. The formula of `idf` would give them the largest,
            which is what ``None`` does.
        general: A table of a larger corpus, such as MS MARCO's (`read_idf`), ``(vocabulary,)``.
        general_documents: As many documents of one's own count as much as the general table.
        punctuation: Whether punctuation weighs what its IDF is, and not 0; see
            `st_l0.encoder.punctuation.punctuation_ids`.

    Returns:
        Weights, float32, ``(vocabulary,)``.

    Raises:
        InputError: The frequencies do not fit the documents, ``unseen`` is negative or not finite,
            ``general`` is of another vocabulary, or ``general_documents`` is below 1.
    """
    weights = idf(frequencies, documents)
    if unseen is not None:
        if not 0 <= unseen < np.inf:
            raise InputError(f"unseen is {unseen}; give a finite weight of at least 0")
        weights[frequencies == 0] = unseen
    if general is not None:
        if general.shape != weights.shape:
            raise InputError(
                f"the general table has the shape {general.shape}, the frequencies {weights.shape}: give a "
                "table of the same tokenizer"
            )
        own = own_share(documents, general_documents)
        weights = (own * weights + (1 - own) * general).astype(np.float32)
    weights[tokenizer.all_special_ids] = 0.0
    if not punctuation:
        weights[punctuation_ids(tokenizer)] = 0.0
    return weights


def own_share(documents: int, general_documents: int) -> float:
    """How much a corpus counts beside a general table, 0 to 1.

    Raises:
        InputError: ``general_documents`` is below 1.
    """
    if general_documents < 1:
        raise InputError(f"general_documents is {general_documents}; give at least 1")
    return documents / (documents + general_documents)


def how_counted(
    frequencies: np.ndarray,
    documents: int,
    *,
    unseen: float | None,
    general: np.ndarray | None,
    general_documents: int,
    punctuation: bool,
) -> str:
    """What `smooth_idf` made of frequencies, in words; arguments as there.

    Example:
        >>> counts = {"unseen": 1.0, "general": None, "general_documents": 1, "punctuation": False}
        >>> how_counted(np.array([0, 2, 5]), 5, **counts)
        '5 documents, 2 tokens occur, 1 do not and weigh 1, punctuation weighs 0'
    """
    seen = int(np.count_nonzero(frequencies))
    weight = "the most" if unseen is None else f"{unseen:g}"
    parts = [
        f"{documents:,} documents",
        f"{seen:,} tokens occur",
        f"{len(frequencies) - seen:,} do not and weigh {weight}",
        f"punctuation weighs {'its IDF' if punctuation else '0'}",
    ]
    if general is not None:
        own = own_share(documents, general_documents)
        parts.append(f"mean of {own:.2f} of this table and {1 - own:.2f} of the general one")
    return ", ".join(parts)
