#!/usr/bin/env bash
# bm25s 0.3.16: its default word pattern knows no combining marks, so words of Indic scripts break or vanish.
#
# `bm25s.tokenize` splits by \b\w\w+\b. Vowel signs and viramas are marks, not letters, and \w leaves them out:
# of a Tamil query half of each word is left, of a Hindi one nothing. Nothing is said; BM25 finds little or nothing.
# A pattern with marks, such as \w[\w\u0300-\u036f\u0900-\u0dff]+ (or the package regex and [\w\p{M}]+), keeps the words.
#
# Seen: [[], ['தம', 'டல']], with the other pattern [['हिन्दी', 'में', 'खोज'], ['தமிழ்', 'தேடல்']]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$folder" \
    bm25s==0.3.16 numpy==2.4.6 scipy==1.17.1
PYTHONPATH=$folder "${PYTHON:-python3}" - <<'PYTHON'
import bm25s

texts = ["हिन्दी में खोज", "தமிழ் தேடல்"]  # "search in Hindi", "Tamil search"


def words(**options):
    return bm25s.tokenize(texts, stopwords=None, return_ids=False, show_progress=False, **options)


print(words(), words(token_pattern=r"\w[\w\u0300-\u036f\u0900-\u0dff]+"))
assert words() == [[], ["தம", "டல"]]
assert words(token_pattern=r"\w[\w\u0300-\u036f\u0900-\u0dff]+") == [text.split() for text in texts]
PYTHON
