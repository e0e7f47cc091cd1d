#!/usr/bin/env bash
# ir_measures 0.4.3: a cut-off orders ties the other way, so RR@10 is above RR.
#
# A reciprocal rank of the first ten results cannot be above that of all results. Here it is: RR goes to
# pytrec_eval, where of two documents with one score the later id comes first, RR@10 to ir_measures' own
# MS MARCO code, where the earlier one does. nDCG@10 goes with RR. Comparing tools in the last digits of RR@k
# compares how they break ties.
#
# Seen: RR 0.5, nDCG@10 0.6309, RR@10 1.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$folder" \
    ir_measures==0.4.3 pytrec_eval-terrier==0.5.11
PYTHONPATH=$folder "${PYTHON:-python3}" - <<'PYTHON'
import ir_measures
from ir_measures import RR, nDCG

found = ir_measures.calc_aggregate([RR, nDCG @ 10, RR @ 10], {"q": {"a": 1}}, {"q": {"a": 1.0, "b": 1.0}})
print({str(measure): round(value, 4) for measure, value in found.items()})
assert (found[RR], round(found[nDCG @ 10], 4), found[RR @ 10]) == (0.5, 0.6309, 1.0)
PYTHON
