#!/usr/bin/env bash
# sentence-transformers 6.2.0: encode_document leaves out the prompt that a model has saved as "passage".
#
# encode_document takes the first of the prompts "document", "passage" and "corpus" that the model has. But every
# model has one called "document": where none was saved, an empty one is put in, on loading as on saving. So a model
# of the E5 kind, whose prompts are {"query": "query: ", "passage": "passage: "}, gets its queries with their prompt
# and its documents without, and no warning. What follows: pass prompt_name="passage", or save it as "document".
#
# Seen: query with its prompt; document without; prompt_name="passage" with it; saved prompts gain "document": "".
#
# It installs torch, which on Linux is some gigabytes: minutes instead of seconds.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sentence-transformers==6.2.0 transformers==5.23.0 torch==2.13.0
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - "$folder" <<'PYTHON'
import json
import sys
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers

# A vector counts the words of a text, so that a prompt shows.
words = ["[UNK]", "query", ":", "passage", "rain", "falls"]
tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
counts = StaticEmbedding(tokenizer, embedding_weights=np.eye(len(words), dtype=np.float32))
prompts = {"query": "query: ", "passage": "passage: "}
place = Path(sys.argv[1], "model")
SentenceTransformer(modules=[counts], prompts=prompts, device="cpu").save_pretrained(str(place))

saved = json.loads((place / "config_sentence_transformers.json").read_text())["prompts"]
model = SentenceTransformer(str(place), device="cpu")
seen = {
    name: {words[i] for i in vectors[0].nonzero()[0]}
    for name, vectors in (
        ("encode_query", model.encode_query(["rain falls"])),
        ("encode_document", model.encode_document(["rain falls"])),
        ('encode(prompt_name="passage")', model.encode(["rain falls"], prompt_name="passage")),
    )
}
print("saved", saved)
for name, found in seen.items():
    print(name, sorted(found))
assert saved == {**prompts, "document": ""}
assert list(seen.values()) == [
    {"query", ":", "rain", "falls"},
    {"rain", "falls"},
    {"passage", ":", "rain", "falls"},
]
PYTHON
