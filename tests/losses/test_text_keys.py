"""Texts are told apart, and recognised, by their tokens."""

import random

import pytest
import torch

from st_l0.losses.combined import text_keys


def keys_of(texts, side="right"):
    """Keys of token sequences; what stands at a padded position is arbitrary."""
    width, filler = max(map(len, texts)), 77
    ids, mask = [], []
    for text in texts:
        padding = width - len(text)
        before, after = (padding, 0) if side == "left" else (0, padding)
        ids.append([filler] * before + list(text) + [filler] * after)
        mask.append([0] * before + [1] * len(text) + [0] * after)
    return text_keys(torch.tensor(ids), torch.tensor(mask))


def test_text_keys_do_not_depend_on_the_padding():
    draw = random.Random(1)
    texts = [[draw.randrange(30522) for _ in range(draw.randrange(1, 20))] for _ in range(50)]
    right, left = keys_of(texts), keys_of(texts, "left")
    assert right.dtype == torch.int64
    assert right.shape == (50,)
    assert torch.equal(right, left)
    alone = torch.cat([keys_of([text]) for text in texts])
    assert torch.equal(right, alone)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([5, 6], [6, 5]),
        ([5], [5, 0]),  # token 0 is a token
        ([0], [0, 0]),
        ([5, 6, 7], [5, 6]),
        ([1, 4], [2, 3]),
        ([9, 9, 2], [2, 9, 9]),
    ],
)
def test_text_keys_tell_texts_apart(one, other):
    keys = keys_of([one, other, one])
    assert keys[0] == keys[2]
    assert keys[0] != keys[1]


def test_text_keys_of_many_texts_do_not_collide():
    draw = random.Random(2)
    short = [(a, b) for a in range(180) for b in range(180)]
    long = [tuple(draw.randrange(250_000) for _ in range(draw.randrange(3, 40))) for _ in range(20_000)]
    near = [(*long[0][:i], token, *long[0][i + 1 :]) for i in range(len(long[0])) for token in range(300)]
    texts = sorted({*short, *long, *near})
    assert len(keys_of(texts).unique()) == len(texts)


def test_a_text_without_tokens_has_a_key():
    keys = keys_of([[], [5], []])
    assert keys[0] == keys[2] != keys[1]
