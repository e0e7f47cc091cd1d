"""What the vectors of an encoder depend on, as one digest.

A fingerprint changes whenever the vectors do: with weights, activations, attention heads, pooling, tokenizer,
lengths, prompts. Names, paths, the model card, dropout and the version of a library change nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

from st_l0.encoder.modules import EncoderModules, text_tokenizer

# What fingerprints begin with. Those by the first rules, which indexes may still hold, have no such mark.
RULES = "2:"

_UNLIMITED = 1 << 62  # more than any text has; tokenizers write 1e30
# Settings of a transformers configuration that no vector depends on (sizes are those of the weights).
_WITHOUT_EFFECT = re.compile(
    r"_.*|.*dropout.*|.*name.*|.*version.*|initializer.*|output_.*|architectures|(torch_)?dtype|auto_map|"
    r"use_cache|return_dict|torchscript|id2label|label2id|num_labels|problem_type|tie_word_embeddings|vocab_size|"
    r"gradient_checkpointing|(bos|eos|cls|sep|mask)_token_id|chunk_size_feed_forward|tokenizer_class"
)


def fingerprint(model: nn.Module, modules: EncoderModules | None, others: Sequence[Any]) -> str:
    """The fingerprint of an encoder.

    Args:
        model: The encoder.
        modules: Its modules, where they are known.
        others: What vectors depend on beside the modules that a text goes through, such as prompts.
    """
    digest = hashlib.sha256(former_fingerprint(model, modules).encode())
    settings = [_stated(one) for one in model.modules()] if modules is None else _settings(modules)
    digest.update(json.dumps([*others, *settings], sort_keys=True, default=str).encode())
    return RULES + digest.hexdigest()


def former_fingerprint(model: nn.Module, modules: EncoderModules | None) -> str:
    """The fingerprint by the first rules: weights and, where the modules are known, pooling alone."""
    digest = hashlib.sha256()
    if modules is not None:
        pooling: Any = modules.pooling
        digest.update(f"{pooling.pooling_strategy} {pooling.activation_function}".encode())
    for parameter in model.parameters():
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _settings(modules: EncoderModules) -> list[Any]:
    """What the vectors of texts depend on that go through the model, beside weights and pooling."""
    transformer: Any = modules.transformer
    of_tokenizer = _tokenizer_settings(text_tokenizer(transformer))
    return [transformer.processing_kwargs, _architecture(transformer.model.config), *of_tokenizer]


def tokenization(modules: EncoderModules) -> list[Any]:
    """What the token ids of queries and documents depend on, and what is made of them."""
    transformer: Any = modules.transformer
    found = [transformer.processing_kwargs]
    found += [getattr(transformer, name, None) for name in ("query_length", "document_length")]
    for tokenizer in (modules.tokenizer, text_tokenizer(transformer)):
        filled = (tokenizer.padding_side, tokenizer.pad_token_id, tokenizer.model_input_names)
        found += [*_tokenizer_settings(tokenizer), *filled]
    return found


def _tokenizer_settings(tokenizer: Any) -> list[Any]:
    plain = _plain(tokenizer).to_str() if tokenizer.is_fast else sorted(tokenizer.get_vocab().items())
    limit = tokenizer.model_max_length
    return [plain, tokenizer.truncation_side, None if limit is None else min(int(limit), _UNLIMITED)]


def _architecture(config: Any) -> dict[str, Any]:
    """The settings of a configuration that differ from those of its class and have an effect."""
    # A later version of the class has more settings, and a former one those that have been dropped since.
    usual = type(config)().to_dict()
    given = {
        name: value
        for name, value in config.to_dict().items()
        if name in usual and value != usual[name] and not _WITHOUT_EFFECT.fullmatch(name)
    }
    return {"model_type": config.model_type, **given}


def _stated(module: nn.Module) -> Any:
    """The class of a module and, of one of sentence-transformers, its configuration."""
    configuration = getattr(module, "get_config_dict", None)
    return [type(module).__name__, configuration() if callable(configuration) else None]


def _plain(tokenizer: Any) -> Tokenizer:
    """A copy of what makes the tokens, without the truncation and the padding of the last call."""
    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_padding()
    plain.no_truncation()
    plain.decoder = None  # which makes texts again
    return plain
