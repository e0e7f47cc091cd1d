"""Small vocabularies of every kind, made by the tokenizers library, and transformers around them."""

import json

import transformers as tf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tiny_models import WORDS

TEXTS = [
    *(" ".join([*WORDS[place:], *WORDS[:place]]) for place in range(len(WORDS))),
    "what is the Water of x?",
]
_LETTERS = "abcdefghijklmnopqrstuvwxyzW,.?"
_BYTES = pre_tokenizers.ByteLevel.alphabet()
_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
# Words with the space before them, numbers, the rest: as o200k and Llama 3 cut, without their finer points.
_PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def wordpiece():
    """BERT's."""
    pieces = [*_SPECIAL, *dict.fromkeys([*WORDS, *_LETTERS]), *(f"##{letter}" for letter in _LETTERS)]
    vocabulary = {piece: row for row, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return _with_special(tokenizer)


def unigram():
    """XLM-R's: SentencePiece with a space before the text."""
    pieces = [*dict.fromkeys(f"\u2581{word}" for word in WORDS), "\u2581", *_LETTERS, "\u2581de", "ing"]
    scores = [(piece, -10.0 / len(piece)) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram([*((token, 0.0) for token in _SPECIAL), *scores], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return _with_special(tokenizer)


def unigram_without():
    """SentencePiece without one."""
    tokenizer = unigram()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    return tokenizer


def byte_level():
    """RoBERTa's, with the tokens of several spaces that ModernBERT has."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    _trained(tokenizer, trainers.BpeTrainer(vocab_size=450, initial_alphabet=_BYTES, **_options()))
    tokenizer.add_tokens([AddedToken(" " * count) for count in (2, 3)])
    return tokenizer


def byte_level_pattern():
    """O200k's and Llama 3's: a pattern cuts first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return _trained(tokenizer, trainers.BpeTrainer(vocab_size=450, initial_alphabet=_BYTES, **_options()))


def byte_fallback():
    """Gemma's: SentencePiece's BPE, in which a normalizer writes the spaces."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    special = [*_SPECIAL, *(f"<0x{number:02X}>" for number in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    _trained(tokenizer, trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][: len(_SPECIAL)]  # bytes are no special tokens
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    parts = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(parts)
    return tokenizer


WITH_SPACE = (wordpiece, unigram)
WITHOUT_SPACE = (unigram_without, byte_level, byte_level_pattern, byte_fallback)


def in_transformers(tokenizer, kind=tf.PreTrainedTokenizerFast, **options):
    """A tokenizer of transformers: the general class around it, or one that takes its vocabulary alone."""
    special = dict(
        zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), _SPECIAL, strict=True)
    )
    special |= {"cls_token": "<s>", "sep_token": "</s>", "model_max_length": 64}
    if kind is tf.PreTrainedTokenizerFast:
        return kind(tokenizer_object=tokenizer, **special, **options)
    model = json.loads(tokenizer.to_str())["model"]
    if isinstance(model["vocab"], list):
        return kind(vocab=[tuple(pair) for pair in model["vocab"]], **special, **options)
    return kind(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]], **special, **options)


def _with_special(tokenizer):
    tokenizer.add_special_tokens(_SPECIAL)
    return tokenizer


def _options():
    return {"special_tokens": _SPECIAL, "show_progress": False}


def _trained(tokenizer, trainer):
    tokenizer.train_from_iterator(TEXTS * 2, trainer)
    return tokenizer
