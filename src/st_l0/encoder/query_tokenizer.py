"""The tokenizer of queries as transformers would load it, without transformers."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers

from st_l0.encoder.hub_options import HubOptions
from st_l0.encoder.pretrained import PROBE, check_length, damaged, read_json
from st_l0.encoder.structure import inside
from st_l0.errors import InputError

_UNLIMITED = int(1e30)  # what transformers has where no limit is given
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_BERT_CLASSES = {"BertTokenizer", "DistilBertTokenizer"}
_BERT_SPECIAL = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


class NeedsModelError(InputError):
    """A query side that only transformers can read: `st_l0.SparseEncoder` loads it, a `QueryEncoder` not."""


class QueryTokenizer:
    """A tokenizer with what queries need of transformers' own, by the same names.

    Args:
        backend_tokenizer: The tokenizer.
        all_special_ids: Ids of its special tokens, which weigh nothing in a query.
        model_max_length: Tokens after which a query is cut.
        truncation_side: ``"right"`` or ``"left"``: where it is cut.
    """

    def __init__(
        self,
        backend_tokenizer: Tokenizer,
        all_special_ids: list[int],
        model_max_length: int = _UNLIMITED,
        truncation_side: str = "right",
    ) -> None:
        self.backend_tokenizer = backend_tokenizer
        self.model_max_length = model_max_length
        self.truncation_side = truncation_side
        self.all_special_ids = all_special_ids

    def __len__(self) -> int:
        return self.backend_tokenizer.get_vocab_size()

    def get_vocab(self) -> dict[str, int]:
        """Token to id."""
        return self.backend_tokenizer.get_vocab()

    def convert_ids_to_tokens(self, token: int) -> str | None:
        """The token of an id."""
        return self.backend_tokenizer.id_to_token(token)


def read_tokenizer(checkpoint: str, folder: str, hub_options: HubOptions) -> QueryTokenizer:
    """Read a tokenizer from ``tokenizer.json`` and what lies beside it.

    Args:
        checkpoint: Folder or Hub id.
        folder: Folder within it, ``""`` for its root.
        hub_options: How to reach it.

    Raises:
        NeedsModelError: There is no ``tokenizer.json`` (older formats), or nothing says of which class it is.
        InputError: A file is damaged, or the length is below 1.
    """
    path = hub_options.find(checkpoint, inside(folder, "tokenizer.json"))
    if path is None:
        raise NeedsModelError(f"{checkpoint}: no {inside(folder, 'tokenizer.json')}; save the model again")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers has no class of its own for them
        raise damaged(path, error) from None
    config = read_json(hub_options.find(checkpoint, inside(folder, "tokenizer_config.json")))
    if "tokenizer_class" not in config:  # which transformers then takes by the model's type
        raise NeedsModelError(
            f"{checkpoint}: no tokenizer_class in {inside(folder, 'tokenizer_config.json')}"
        )
    special = {key: value for key, value in config.items() if key.endswith("_token") and _is_token(value)}
    if "added_tokens_decoder" not in config:  # an older format, in which the special tokens have a file
        older = read_json(hub_options.find(checkpoint, inside(folder, "special_tokens_map.json")))
        config = config | older
        special |= {key: value for key, value in older.items() if key.endswith("_token") and _is_token(value)}
    if str(config.get("tokenizer_class")).removesuffix("Fast") in _BERT_CLASSES:
        # transformers builds these anew, by the configuration instead of tokenizer.json.
        tokenizer.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=config.get("tokenize_chinese_chars", True),
            strip_accents=config.get("strip_accents"),
            lowercase=config.get("do_lower_case", True),
        )
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        special = _BERT_SPECIAL | special
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    if isinstance(extra, dict):
        special, extra = special | extra, []
    named = sorted(special, key=lambda key: _SPECIAL.index(key) if key in _SPECIAL else len(_SPECIAL))
    tokens = [_added_token(special[key]) for key in named] + [_added_token(token) for token in extra]
    decoder = config.get("added_tokens_decoder", {})
    tokenizer.add_tokens([AddedToken(**decoder[number]) for number in sorted(decoder, key=int)])
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    tokenizer.add_tokens([token for token in tokens if token.content not in added])
    ids = [tokenizer.token_to_id(token.content) for token in tokens]
    try:
        tokenizer.encode(PROBE, add_special_tokens=False)
    except Exception as error:  # there is no token for what is unknown
        raise damaged(path, error) from None
    truncation = tokenizer.truncation or {"direction": "right"}
    limit = config.get("model_max_length", config.get("max_len"))
    if limit is not None:
        check_length(limit, f"{checkpoint}: {inside(folder, 'tokenizer_config.json')}: model_max_length")
    return QueryTokenizer(
        tokenizer,
        sorted({token for token in ids if token is not None}),
        _UNLIMITED if limit is None else int(limit),
        str(config.get("truncation_side", truncation["direction"])).lower(),
    )


def _is_token(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, dict) and "content" in value)


def _added_token(value: Any) -> AddedToken:
    """A special token, which may be written with its properties."""
    if isinstance(value, str):
        return AddedToken(value, special=True)
    return AddedToken(**{key: value[key] for key in value if key not in ("__type", "special")}, special=True)
