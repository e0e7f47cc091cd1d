"""Adapters of peft: what is saved loads again with the same vectors, here and in stock, or is refused."""

import numpy as np
import pytest
import sentence_transformers
import torch

from st_l0 import SparseEncoder
from st_l0.encoder.modules import encoder_modules
from st_l0.encoder.precision import encoder_precision
from st_l0.errors import InputError
from st_l0.hub.exporting import export
from tiny_models import DOCUMENTS, QUERIES, dense, stock_encode

peft = pytest.importorskip("peft")

ATTENTION = ["query", "value"]


def lora(targets=ATTENTION, **options):
    """A LoRA that moves the vectors from the start."""
    return peft.LoraConfig(r=4, target_modules=targets, **{"init_lora_weights": False, **options})


def with_adapter(model, config, how="add_adapter"):
    torch.manual_seed(3)
    if how == "add_adapter":
        model.add_adapter(config)
    else:
        transformer = encoder_modules(model).transformer
        transformer.model = peft.get_peft_model(transformer.model, config)
    return model.eval()


def moved_decoder(model):
    """The decoder of modules_to_save, trained away from the embeddings."""
    decoder = encoder_modules(model).transformer.model.get_output_embeddings()
    with torch.no_grad():
        decoder.modules_to_save["default"].weight.add_(0.3 * torch.randn(decoder.weight.shape))
    return model


def vectors(model):
    return dense(model.encode_document(DOCUMENTS))


KINDS = {
    "attention": lora(),
    "all layers": lora("all-linear"),
    "dora": lora(use_dora=True),
    "decoder to save": lora(modules_to_save=["decoder"]),
    "bias": lora(bias="lora_only"),
    "ia3": peft.IA3Config(
        target_modules=["key", "dense"], feedforward_modules=["dense"], init_ia3_weights=False
    ),
}


@pytest.mark.parametrize("layout", ["root", "folders"])
@pytest.mark.parametrize("how", ["add_adapter", "get_peft_model"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_loads_with_the_same_vectors(tiny_encoder, tmp_path, kind, how, layout):
    model = with_adapter(tiny_encoder(), KINDS[kind], how)
    if kind == "decoder to save":
        moved_decoder(model)
    expected, before = vectors(model), vectors(tiny_encoder())
    names, weights = list(model.state_dict()), [one.clone() for one in model.state_dict().values()]
    modules = list(model.modules())
    model.save(str(tmp_path / "saved"), layout=layout)
    assert list(model.state_dict()) == names and list(model.modules()) == modules
    assert all(map(torch.equal, model.state_dict().values(), weights))
    np.testing.assert_array_equal(vectors(model), expected)
    assert np.abs(expected - before).max() > 0.1
    for kind in (SparseEncoder, sentence_transformers.SparseEncoder):
        loaded = kind(str(tmp_path / "saved"), device="cpu")
        np.testing.assert_allclose(vectors(loaded), expected, rtol=1e-5, atol=2e-5)
        np.testing.assert_array_equal(dense(loaded.encode_query(QUERIES)), dense(model.encode_query(QUERIES)))
    assert not list((tmp_path / "saved").rglob("adapter*"))
    assert SparseEncoder(str(tmp_path / "saved"), device="cpu").fingerprint() == model.fingerprint()


@pytest.mark.parametrize(
    ("architecture", "targets", "head"),
    [
        ("distilbert", ["q_lin", "vocab_transform"], "vocab_projector"),
        ("roberta", ATTENTION, "decoder"),
        ("modernbert", ["Wqkv"], "decoder"),
    ],
)
def test_other_architectures(tiny_encoder, mlm_folders, tmp_path, architecture, targets, head):
    model = tiny_encoder(mlm_folders(architecture))
    moved_decoder(with_adapter(model, lora(targets, modules_to_save=[head])))
    expected = vectors(model)
    model.save(str(tmp_path / "saved"), layout="root")
    for kind in (SparseEncoder, sentence_transformers.SparseEncoder):
        found = vectors(kind(str(tmp_path / "saved"), device="cpu"))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("how", ["add_adapter", "get_peft_model"])
def test_the_vectors_with_an_adapter_are_stocks(tiny_encoder, how):
    model = with_adapter(tiny_encoder(), lora(), how)
    np.testing.assert_allclose(vectors(model), dense(stock_encode(model, DOCUMENTS, "document")), atol=2e-5)
    with encoder_precision(model, "bfloat16"):
        assert np.abs(vectors(model) - dense(stock_encode(model, DOCUMENTS, "document"))).max() < 0.2


def test_an_adapter_that_was_merged_by_hand_leaves_nothing_to_do(tiny_encoder, tmp_path):
    model = with_adapter(tiny_encoder(), lora(), "get_peft_model")
    expected = vectors(model)
    transformer = encoder_modules(model).transformer
    transformer.model = transformer.model.merge_and_unload()
    model.save(str(tmp_path / "saved"))
    found = vectors(SparseEncoder(str(tmp_path / "saved"), device="cpu"))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)


def test_an_export_of_what_was_saved_is_whole(tiny_encoder, tmp_path):
    model = with_adapter(tiny_encoder(), lora())
    expected = vectors(model)
    model.save(str(tmp_path / "saved"))
    copy = export(tmp_path / "saved", tmp_path / "copy", half=False)
    np.testing.assert_allclose(
        vectors(SparseEncoder(str(copy), device="cpu")), expected, rtol=1e-5, atol=2e-5
    )


def test_queries_through_the_model_too(tiny_encoder, tmp_path):
    model = with_adapter(tiny_encoder(idf=None), lora(), "get_peft_model")
    model.save(str(tmp_path / "saved"))
    loaded = SparseEncoder(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(vectors(loaded), vectors(model), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("targets", "named"), [([*ATTENTION, "decoder"], "decoder"), (["word_embeddings"], "word_embeddings")]
)
def test_an_adapter_on_tied_weights_is_refused(tiny_encoder, tmp_path, targets, named):
    model = with_adapter(tiny_encoder(), lora(targets))
    expected = vectors(model)
    with pytest.raises(
        InputError, match=rf"adapter is on {named}, whose weights are tied.*modules_to_save="
    ) as caught:
        model.save(str(tmp_path / "saved"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "saved").exists()
    np.testing.assert_array_equal(vectors(model), expected)


def test_an_untied_decoder_may_have_an_adapter(tiny_encoder, tmp_path):
    model = tiny_encoder()
    moved_decoder(with_adapter(model, lora(modules_to_save=["decoder"])))
    model.save(str(tmp_path / "untied"))
    model = with_adapter(SparseEncoder(str(tmp_path / "untied"), device="cpu"), lora(["decoder"]))
    model.save(str(tmp_path / "saved"))
    loaded = sentence_transformers.SparseEncoder(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(vectors(loaded), vectors(model), rtol=1e-5, atol=2e-5)


def test_what_does_not_merge_is_refused(tiny_encoder, tmp_path):
    model = with_adapter(tiny_encoder(), lora())
    encoder_modules(model).transformer.model.disable_adapters()
    with pytest.raises(InputError, match=r"is it disabled.*merge_and_unload"):
        model.save(str(tmp_path / "saved"))
    model = with_adapter(tiny_encoder(), lora(), "get_peft_model")
    with pytest.raises(InputError, match=r"NaN.*merge_and_unload"), torch.no_grad():
        next(one for name, one in model.named_parameters() if "lora_B" in name).fill_(float("nan"))
        model.save(str(tmp_path / "saved"))
    prompt = peft.PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=2)
    with pytest.raises(InputError, match="PromptTuningConfig puts tokens before the text"):
        with_adapter(tiny_encoder(), prompt, "get_peft_model").encode_document(DOCUMENTS)
    assert not (tmp_path / "saved").exists()
