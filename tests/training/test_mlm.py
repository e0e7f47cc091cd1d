"""The masked-language-model phase, on tiny models."""

import math

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForMaskedLM, AutoTokenizer

from st_l0.errors import InputError
from st_l0.training.mlm import _MaskedLoss, train_mlm
from tiny_models import DOCUMENTS, WORDS

TEXTS = [" ".join([WORDS[i % 4], WORDS[4 + i % 4]] * 8) for i in range(64)]


def loss_of(folder):
    """Of guessing the third word from its neighbours: each text repeats two words."""
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    features = tokenizer(TEXTS[:8], return_tensors="pt", padding=True)
    labels = features["input_ids"][:, 3].clone()
    features["input_ids"][:, 3] = tokenizer.mask_token_id
    with torch.inference_mode():
        logits = model.eval()(**features).logits[:, 3]
    return torch.nn.functional.cross_entropy(logits, labels).item()


def test_it_learns_and_keeps_what_it_is_given(mlm_folder, tmp_path):
    train_mlm(mlm_folder, TEXTS, tmp_path / "none", steps=0)
    before = AutoModelForMaskedLM.from_pretrained(mlm_folder).state_dict()
    same = AutoModelForMaskedLM.from_pretrained(tmp_path / "none").state_dict()
    silenced = ("cls.predictions.bias", "cls.predictions.decoder.bias")  # special tokens, as in any encoder
    assert all(torch.equal(before[name], same[name]) for name in before.keys() - set(silenced))
    train_mlm(
        mlm_folder, iter(TEXTS), tmp_path / "some", steps=60, batch_size=16, learning_rate=3e-3, dropout=0.0
    )
    assert loss_of(tmp_path / "some") < 0.5 * loss_of(mlm_folder)
    assert math.isfinite(loss_of(tmp_path / "some"))


def test_the_same_seed_gives_the_same_model(mlm_folder, tmp_path):
    for name in ("one", "two"):
        train_mlm(mlm_folder, TEXTS, tmp_path / name, steps=3, batch_size=8)
    one, two = (AutoModelForMaskedLM.from_pretrained(tmp_path / name).state_dict() for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("architecture", ["bert", "mpnet"])  # without padding, and with it
def test_the_loss_is_that_of_transformers(mlm_folders, architecture):
    folder = mlm_folders(architecture)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(
        ["the cat", "rain snow wind dog house the man", "milk"], return_tensors="pt", padding=True
    )
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    labels = torch.full_like(batch["input_ids"], -100)
    labels[[0, 1, 1], [1, 2, 6]] = batch["input_ids"][[0, 1, 1], [1, 2, 6]]
    stock, ours = (AutoModelForMaskedLM.from_pretrained(folder).eval() for _ in range(2))
    expected = stock(**inputs, labels=labels).loss
    found = _MaskedLoss(ours)(**inputs, labels=labels)["loss"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    expected.backward(), found.backward()
    for one, other in zip(ours.parameters(), stock.parameters(), strict=True):
        if other.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_unknown_words_are_not_guessed(mlm_folder, tmp_path, monkeypatch):
    """Their logit is -1e4: a single one as a label would be a loss of 1e4."""
    seen = []
    loss = functional.cross_entropy
    monkeypatch.setattr(functional, "cross_entropy", lambda *given: seen.append(loss(*given)) or seen[-1])
    train_mlm(mlm_folder, ["the \u2603 cat \u2603 sat \u2603"] * 64, tmp_path / "m", steps=3, batch_size=16)
    assert len(seen) == 3 and max(seen) < 100
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert not (tmp_path / "m" / "checkpoints").exists()


def test_no_texts_are_refused(mlm_folder, tmp_path):
    with pytest.raises(InputError, match="no texts"):
        train_mlm(mlm_folder, [], tmp_path / "m", steps=1)
    assert DOCUMENTS and not (tmp_path / "m").exists()
