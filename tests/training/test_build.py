"""The loss of a recipe is of the class that is named for its method."""

import json

import pytest

from st_l0.losses import DFFlopsLoss, FlopsLoss, IDFFlopsLoss, L0ActivationFlopsLoss, L0MaskFlopsLoss, L1Loss
from st_l0.training.build import build_loss
from st_l0.training.recipe import Recipe
from tiny_models import VOCABULARY


def document_regularizer(model, loss):
    recipe = Recipe(
        model={"base_model": "none"},
        data={"train": ["none.jsonl"]},
        loss={"document_regularizer_weight": 0.1, **loss},
        training={"max_steps": 1},
        output="none",
    )
    return build_loss(recipe, model, 3).document_regularizer


@pytest.mark.parametrize(
    ("loss", "kind", "settings"),
    [
        ({}, FlopsLoss, {"threshold": None, "extra_logs": 0}),
        ({"threshold": 0}, L0MaskFlopsLoss, {"threshold": 0, "positions": 1}),
        (
            {"threshold": 200, "reduction": "per_position"},
            L0MaskFlopsLoss,
            {"threshold": 200, "positions": 3},
        ),
        ({"extra_logs": 2}, L0ActivationFlopsLoss, {"extra_logs": 2}),
        (
            {"token_weights": "df", "df_alpha": 0.2, "df_beta": 3.0, "df_refresh_steps": 7},
            DFFlopsLoss,
            {"alpha": 0.2, "beta": 3.0, "refresh_steps": 7, "positions": 1},
        ),
        ({"top_k": 5}, FlopsLoss, {"top_k": 5}),
        ({"threshold": 9, "extra_logs": 1}, FlopsLoss, {"threshold": 9, "extra_logs": 1}),
        (
            {"threshold": 9, "token_weights": "df", "df_alpha": 0.2},
            FlopsLoss,
            {"token_weights": "document frequency (alpha 0.2, beta 10.0, every 100 batches)"},
        ),
        ({"regularizer": "l1", "threshold": 9}, L1Loss, {"threshold": 9}),
    ],
)
def test_named_method(tiny_encoder, loss, kind, settings):
    made = document_regularizer(tiny_encoder(), loss)
    assert type(made) is kind
    assert settings.items() <= made.get_config_dict().items()


def test_idf_file(tiny_encoder, tmp_path):
    path = tmp_path / "idf.json"
    path.write_text(json.dumps(dict.fromkeys(VOCABULARY, 2.0)))
    one = document_regularizer(tiny_encoder(), {"token_weights": str(path)})
    both = document_regularizer(tiny_encoder(), {"token_weights": str(path), "threshold": 9})
    assert (type(one), type(both)) == (IDFFlopsLoss, FlopsLoss)
    for made in (one, both):
        assert set(made.token_weights.tolist()) == {0.0, 0.5}  # special tokens have none
