"""The closed-form start of an MLM head, on a base model whose last hidden state still shows its token."""

import numpy as np
import pytest
import torch
from sentence_transformers.base.modules import Transformer
from transformers import BertConfig, BertForMaskedLM, BertModel, ElectraConfig, ElectraForMaskedLM

from st_l0 import SparseEncoder
from st_l0.errors import InputError
from st_l0.head import warm_start
from st_l0.head.mlm_head import read_head
from st_l0.head.warm_start import _ridge, _stretch, warm_start_head
from tiny_models import ARCHITECTURES, DOCUMENTS, VOCABULARY, WORDS, make_tokenizer, save_model

HIDDEN = 32


def texts(count, seed=0):
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, 12)) for _ in range(count)]


@pytest.fixture(scope="module")
def headless_folder(tmp_path_factory):
    """A `BertModel` whose layers add little to the residual stream: nearly linear in the token embedding."""
    folder = tmp_path_factory.mktemp("headless")
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    model = BertModel(config, add_pooling_layer=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "position" in name or "token_type" in name:
                parameter.mul_(0.05)
            if "output.dense" in name:
                parameter.mul_(0.02)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


def fill_mask(folder):
    return Transformer(folder, transformer_task="fill-mask", max_seq_length=64)


def share_of_own_token(transformer, given):
    """In how many positions the token itself has the largest logit."""
    features = transformer.tokenizer(given, padding=True, return_tensors="pt")
    ids = features["input_ids"]
    own = (features["attention_mask"] == 1) & (ids > 4)
    with torch.inference_mode():
        winners = transformer.model.eval()(**features).logits.argmax(-1)
    return (winners == ids)[own].float().mean().item()


def test_the_own_token_wins_nearly_everywhere(headless_folder):
    transformer = fill_mask(headless_folder)
    unseen = texts(30, seed=9)
    assert share_of_own_token(transformer, unseen) < 0.1
    warm_start_head(transformer, texts(100))
    assert share_of_own_token(transformer, unseen) > 0.95


def test_documents_of_a_started_encoder_hold_their_own_words(headless_folder, tmp_path):
    model = SparseEncoder.from_mlm(headless_folder, idf="binary", warm_start=texts(100), device="cpu")
    for encoder in (model, SparseEncoder.from_pretrained(save_model(model, tmp_path / "m"), device="cpu")):
        row = encoder.encode_document(["the cat sat in a small house"], convert_to_scipy=True).toarray()[0]
        for token in ("the", "cat", "small", "house"):
            assert row[VOCABULARY.index(token)] > row[5:].mean()
        largest = np.argsort(-row)[:5]
        assert sum(VOCABULARY[i] in {"the", "cat", "in", "a", "small", "house"} for i in largest) >= 4


def test_the_started_transform_is_linear_up_to_the_norm(headless_folder):
    transformer = fill_mask(headless_folder)
    warm_start_head(transformer, texts(100))
    head = read_head(transformer.model)
    features = transformer.tokenizer(texts(5, seed=9), padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = transformer.model.base_model(**features).last_hidden_state
        # A layer norm takes any constant out, so the shift inside the bias does not matter here.
        linear = torch.nn.functional.layer_norm(head.dense(hidden), [HIDDEN])
        torch.testing.assert_close(head.transform(hidden), linear, atol=1e-3, rtol=0)


def logits_of(transformer, given):
    features = transformer.tokenizer(given, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = (
            transformer.model.eval().base_model(**features).last_hidden_state[features["attention_mask"] == 1]
        )
        head = read_head(transformer.model)
        return head.dense(hidden) - 8, head.decoder(head.transform(hidden))


def test_the_map_is_stretched_and_the_function_stays(headless_folder, monkeypatch):
    stretched, plain = fill_mask(headless_folder), fill_mask(headless_folder)
    warm_start_head(stretched, texts(100))
    monkeypatch.setattr(warm_start, "_stretch", lambda values: 0.1)
    warm_start_head(plain, texts(100))
    (wide, ours), (narrow, expected) = (logits_of(one, texts(30, seed=9)) for one in (stretched, plain))
    assert wide.std().item() == pytest.approx(0.5, rel=0.1) and wide.std() > 4 * narrow.std()
    assert (ours - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize(
    ("values", "factor"),
    [
        ([-0.01, 0.01], 0.5 / 0.01),
        ([0.3, 0.7, 0.3, 0.7], 0.5 / 0.2),  # none is below 0
        ([-0.1, *[0.0] * 9999], 5 / 0.1),  # 8 - 5 is the lowest
    ],
)
def test_how_far_the_map_is_stretched(values, factor):
    given = torch.tensor(values)
    found = _stretch(given.expand(1000, -1))
    assert found == pytest.approx(factor, rel=1e-3)
    assert 8 + found * given.min() >= 3 - 1e-5


def test_only_the_head_changes_and_stays_tied(headless_folder):
    transformer = fill_mask(headless_folder)
    model = transformer.model
    before = {name: parameter.detach().clone() for name, parameter in model.base_model.named_parameters()}
    warm_start_head(transformer, texts(60), decoder_bias=-3.5)
    for name, parameter in model.base_model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    head = read_head(model)
    assert head.decoder.weight is model.get_input_embeddings().weight
    assert (head.decoder.bias == -3.5).all()
    assert (head.norm.weight == 1).all()
    assert (head.norm.bias == 0).all()
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_known_head_can_be_started(mlm_folders, architecture):
    transformer = fill_mask(mlm_folders(architecture))
    dense = read_head(transformer.model).dense
    if dense.bias is None:
        with pytest.raises(InputError, match="no closed-form start"):
            warm_start_head(transformer, texts(20))
        return
    before = dense.weight.detach().clone()
    warm_start_head(transformer, texts(20))
    head = read_head(transformer.model)
    assert not torch.equal(head.dense.weight, before)
    assert head.dense.weight.isfinite().all()
    assert head.decoder.weight is transformer.model.get_input_embeddings().weight


def test_ridge_is_weighted_least_squares():
    generator = torch.Generator().manual_seed(0)
    ids = torch.tensor([0] * 20 + [1] * 5 + [2] * 9 + [3] + [5] * 30)
    embeddings = torch.randn(7, 4, generator=generator)
    states = torch.randn(len(ids), 6, generator=generator) + embeddings[ids].repeat(1, 2)[:, :6]
    weight, bias = _ridge(states, ids, embeddings)
    assert weight.shape == (4, 6)
    assert bias.shape == (4,)

    # As a plain least-squares problem: rows scaled by the root of their weight, a column of ones for the
    # bias, and rows that pull the weights (not the bias) towards zero.
    x, y = states.double().numpy(), (embeddings - embeddings.mean(0)).double().numpy()[ids.numpy()]
    root = np.bincount(ids.numpy())[ids.numpy()] ** -0.25
    centred = x - np.average(x, axis=0, weights=root**2)
    strength = 0.01 * np.mean(np.sum((root[:, None] * centred) ** 2, axis=0))
    rows = np.block(
        [
            [root[:, None] * x, root[:, None]],
            [np.sqrt(strength) * np.eye(6), np.zeros((6, 1))],
        ]
    )
    targets = np.concatenate([root[:, None] * y, np.zeros((6, 4))])
    solution, *_ = np.linalg.lstsq(rows, targets, rcond=None)
    np.testing.assert_allclose(weight.numpy(), solution[:6].T, atol=1e-5)
    np.testing.assert_allclose(bias.numpy(), solution[6], atol=1e-5)


def test_a_frequent_token_does_not_decide_the_map_alone():
    """Two tokens whose states disagree: 10,000 and 1 time; by counts the rare one would be lost."""
    embeddings = torch.tensor([[1.0], [-1.0]])
    ids = torch.tensor([0] * 10_000 + [1])
    states = torch.tensor([[1.0]] * 10_000 + [[-1.0]])
    weight, bias = _ridge(states, ids, embeddings)
    # Weights 100 and 1 in sum: mean state 99/101, variance 4 * 100 / 101^2, ridge 1 % of it.
    mean = 99 / 101
    slope = 1 / 1.01
    assert weight.item() == pytest.approx(slope, rel=1e-5)
    assert bias.item() == pytest.approx(mean - slope * mean, abs=1e-6)


def test_texts_are_read_only_as_far_as_needed(headless_folder):
    read = []

    def stream():
        for text in texts(1000):
            read.append(text)
            yield text

    # 12 tokens a text and 4 texts a batch: 100 tokens need three batches.
    warm_start_head(fill_mask(headless_folder), stream(), tokens=100, batch_size=4)
    assert len(read) == 12


def test_too_little_text_is_refused_and_changes_nothing(headless_folder):
    for given, held in (([], 0), (["cat dog", "[SEP] zzz"], 2)):
        transformer = fill_mask(headless_folder)
        before = {name: value.clone() for name, value in transformer.model.state_dict().items()}
        with pytest.raises(InputError, match=rf"needs at least {HIDDEN} tokens .* hold {held}$"):
            warm_start_head(transformer, given)
        for name, value in transformer.model.state_dict().items():
            assert torch.equal(value, before[name])


def test_special_and_unknown_tokens_are_not_fitted(headless_folder):
    one, other = fill_mask(headless_folder), fill_mask(headless_folder)
    # Only in front of the text and after it there are [CLS] and [SEP]; padding comes with the shorter text.
    given = texts(20)
    warm_start_head(one, given, batch_size=1)
    warm_start_head(other, given, batch_size=20)
    torch.testing.assert_close(read_head(one.model).dense.weight, read_head(other.model).dense.weight)
    with pytest.raises(InputError, match=r"hold 0$"):
        warm_start_head(one, ["[MASK] [SEP] zzz qqq"] * 50)


def test_heads_without_a_closed_form_are_refused(tmp_path):
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    cases = {
        "no closed-form start": ElectraForMaskedLM(
            ElectraConfig(vocab_size=len(VOCABULARY), embedding_size=16, **shape)
        ),
        "decoder tied to the embeddings": BertForMaskedLM(
            BertConfig(vocab_size=len(VOCABULARY), tie_word_embeddings=False, **shape)
        ),
    }
    for number, (message, model) in enumerate(cases.items()):
        folder = tmp_path / str(number)
        model.save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        with pytest.raises(InputError, match=message) as error:
            warm_start_head(fill_mask(str(folder)), texts(20))
        assert type(model).__name__ in str(error.value)
        assert "\n" not in str(error.value)


def test_from_mlm_needs_enough_text_too(headless_folder):
    with pytest.raises(InputError, match="a warm start needs at least"):
        SparseEncoder.from_mlm(headless_folder, idf="binary", warm_start=DOCUMENTS[:2], device="cpu")
