"""Model cards that tell people to encode queries as queries and documents as documents."""

from __future__ import annotations

from dataclasses import dataclass

from sentence_transformers import SparseEncoderModelCardData

from st_l0.utils.stock import default_model_id


@dataclass
class ModelCardData(SparseEncoderModelCardData):
    """Card of an inference-free encoder.

    Stock's usage example sends queries through the document encoder (`encode`), and its widget shows texts of
    the training data; this one does neither.
    """

    generate_widget_examples: bool = False

    def run_usage_snippet(self) -> None:
        """Encode nothing: the example shows no numbers of this model."""

    def generate_usage_snippet(self) -> str:
        """The Python example of the card, which works with plain sentence-transformers."""
        model_id = self.model_id or default_model_id(self)
        return f'''```python
from sentence_transformers import SparseEncoder

model = SparseEncoder("{model_id}")
queries = ["what is sparse retrieval?"]
documents = ["Sparse retrieval matches weighted vocabulary tokens in an inverted index.", "It rains."]

# Queries run no model: they are tokenized and looked up in a table.
scores = model.similarity(model.encode_query(queries), model.encode_document(documents))
```

The same with `pip install st-l0`, which encodes faster and brings an index:

```python
from st_l0 import SparseEncoder, open_index

model = SparseEncoder.from_pretrained("{model_id}")
index = open_index("./my-index")
index.add([0, 1], model.encode_document(documents), documents)
for hit in index.search(model.encode_query(queries), k=10)[0]:
    print(hit.score, hit.id, hit.text)
```
'''
