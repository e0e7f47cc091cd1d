"""Training on texts that are looked up: the trainer must see what it would see of the texts themselves."""

import pickle

import pytest
import torch
from data_files import write
from sentence_transformers import SparseEncoderTrainer, SparseEncoderTrainingArguments

from st_l0.data import open_texts, read_training_data

WORDS = ["cat", "dog", "bird", "fish", "tree", "river", "mountain", "sun"]


@pytest.fixture
def sources(tmp_path):
    """Paths of the same rows by ids and by texts, and the two lookups."""
    documents = [{"_id": index, "text": f"the {word} and a {word}"} for index, word in enumerate(WORDS)]
    queries = [{"_id": f"q{index}", "text": word} for index, word in enumerate(WORDS)]
    by_id, by_text = [], []
    for index in range(8):
        ids = [(index + step) % 8 for step in (0, 1, 3)]
        scores = [3.0, index / 4, -1.0]
        by_id.append({"query": f"q{index}", "docs": ids, "scores": scores})
        texts = [documents[document]["text"] for document in ids]
        by_text.append({"query": WORDS[index], "documents": texts, "scores": scores})
    lookups = {
        "corpus": open_texts(write(tmp_path / "corpus.jsonl", *documents), "corpus"),
        "queries": open_texts(write(tmp_path / "queries.jsonl", *queries), "queries"),
    }
    return write(tmp_path / "ids.jsonl", *by_id), write(tmp_path / "texts.jsonl", *by_text), lookups


class Recording(torch.nn.Module):
    """A loss that keeps what reached it."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.seen = []

    def forward(self, features, labels):
        columns = list(features)
        query, *documents = [self.model(column)["sentence_embedding"] for column in columns]
        scores = torch.stack([(query * document).sum(1) for document in documents], dim=1)
        self.seen.append(([column["input_ids"].tolist() for column in columns], labels.tolist()))
        return torch.nn.functional.mse_loss(scores, labels)


def train(data, model, folder, workers):
    query, *documents = data.columns
    arguments = SparseEncoderTrainingArguments(
        output_dir=str(folder),
        max_steps=4,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        dataloader_num_workers=workers,
        router_mapping={query: "query", **dict.fromkeys(documents, "document")},
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        seed=3,
    )
    assert arguments.remove_unused_columns == SparseEncoderTrainingArguments.remove_unused_columns
    loss = Recording(model)
    trainer = SparseEncoderTrainer(model=model, args=arguments, train_dataset=data.dataset, loss=loss)
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return loss.seen, losses, trainer


@pytest.mark.parametrize("workers", [0, 2])
def test_training_sees_the_texts_in_order_and_the_scores(tmp_path, sources, tiny_encoder, workers):
    by_id, by_text, lookups = sources
    data = read_training_data(by_id, **lookups, score_scale=2.0)
    seen, losses, _ = train(data, tiny_encoder(), tmp_path / "a", workers)
    plain = read_training_data(by_text, score_scale=2.0)
    expected, expected_losses, _ = train(plain, tiny_encoder(), tmp_path / "b", 0)
    assert seen == expected and losses == expected_losses
    assert len(losses) == 4

    columns, labels = seen[0]
    assert len(columns) == 4 and torch.tensor(labels).shape == (4, 3)
    tokenizer = tiny_encoder().tokenizer
    queries, *documents = (
        [tokenizer.decode(ids, skip_special_tokens=True) for ids in texts] for texts in columns
    )
    for row, query in enumerate(queries):
        index = WORDS.index(query)
        words = [WORDS[(index + step) % 8] for step in (0, 1, 3)]
        assert [texts[row] for texts in documents] == [f"the {word} and a {word}" for word in words]
        assert labels[row] == [6.0, index / 2, -2.0]


def test_the_trained_model_is_saved_with_its_card(tmp_path, sources, tiny_encoder):
    by_id, _, lookups = sources
    data = read_training_data(by_id, **lookups)
    _, _, trainer = train(data, tiny_encoder(), tmp_path / "run", 0)
    trainer.save_model(str(tmp_path / "model"))
    card = (tmp_path / "model" / "README.md").read_text()
    assert "<code>document_3</code>" in card  # the card looks at rows of the dataset


def test_queries_each_once(tmp_path, sources):
    by_id, by_text, lookups = sources
    for data in (
        read_training_data([by_id, by_id], **lookups),
        read_training_data([by_text, by_text], documents_per_query=1),
    ):
        assert len(data.dataset) >= 16 and data.queries() == WORDS


def test_a_pickled_dataset_looks_up_the_same(sources):
    by_id, _, lookups = sources
    dataset = read_training_data(by_id, **lookups).dataset
    received = pickle.loads(pickle.dumps(dataset))[[5, 0]]
    assert received == dataset[[5, 0]]
    assert received["query"] == ["river", "cat"]
