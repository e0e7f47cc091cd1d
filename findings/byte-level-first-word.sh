#!/usr/bin/env bash
# tokenizers 0.23.3: byte-level BPE makes the first word of a query another piece than the same word in a text.
#
# ByteLevel(add_prefix_space=False), as GPT-2, RoBERTa and ModernBERT have it, marks words by the space before
# them, and the first word has none. In sparse retrieval that matters: "cat" at the beginning of a query shares
# no piece with "the cat sat", and since no document has the piece, an IDF table gives it the largest weight
# there is. A space in front of each query, and of each text when pieces are counted, makes them equal.
#
# Seen: 'cat sat' -> ['cat', 'Ġsat'] (in 0 of 20 documents, in 15), ' cat sat' -> ['Ġcat', 'Ġsat'] (20, 15)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$folder" \
    tokenizers==0.23.3
PYTHONPATH=$folder "${PYTHON:-python3}" - <<'PYTHON'
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
documents = ["the cat sat on the mat", "a dog sat on the cat", "then a cat sat", "the dog saw a cat"] * 5
trainer = trainers.BpeTrainer(
    vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
)
tokenizer.train_from_iterator(documents, trainer)
found = {}
for query in ("cat sat", " cat sat"):
    pieces = tokenizer.encode(query).tokens
    found[query] = pieces, [sum(piece in tokenizer.encode(text).tokens for text in documents) for piece in pieces]
    print(repr(query), *found[query])
assert found == {"cat sat": (["cat", "Ġsat"], [0, 15]), " cat sat": (["Ġcat", "Ġsat"], [20, 15])}
PYTHON
