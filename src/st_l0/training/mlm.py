"""A masked-language-model phase before the retrieval training.

For a base model without an MLM head (MiniLM, E5, GTE …) it goes on from the closed-form start of
`st_l0.head.warm_start`: that lets a document activate its own words, this teaches which other words could
stand in their place. For one that has a head it adapts the model to the texts.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments, set_seed

from st_l0.encoder.hub_options import HubOptions
from st_l0.encoder.modules import encoder_modules, state_length, text_tokenizer
from st_l0.encoder.pretrained import has_mlm_head, position_limit
from st_l0.encoder.sparse_encoder import SparseEncoder
from st_l0.encoder.unpadded import can_drop_padding, states_without_padding
from st_l0.errors import InputError
from st_l0.head.mlm_head import MLMHead, read_head
from st_l0.training.build import set_dropout
from st_l0.utils.files import hold_folder, make_readable, replace_folder
from st_l0.utils.paths import local_name, local_path

_KIND = "masked language model"
_MASKED = 0.15


def train_mlm(
    base_model: str | Path,
    texts: Iterable[str],
    output: str | Path,
    *,
    steps: int,
    batch_size: int = 32,
    max_seq_length: int = 128,
    learning_rate: float = 2e-4,
    dropout: float | None = None,
    bf16: bool = False,
    seed: int = 42,
    trust_remote_code: bool = False,
) -> Path:
    """Train the masked language model of a base model, and write it as a checkpoint of transformers.

    15 % of the tokens are masked as BERT does it. Logits are computed at those alone, so a step costs little
    more than the transformer. For one process and one device; a phase is too short to be resumed.

    Args:
        base_model: Hub id or folder; without an MLM head it gets a closed-form start from the texts.
        texts: The documents; held in memory.
        output: Folder for the checkpoint: new, empty, or an earlier one, which is replaced as a whole.
        steps: Optimizer steps; 0 leaves it at the closed-form start.
        batch_size: Texts a step.
        max_seq_length: Tokens of a text; the rest is cut off.
        learning_rate: Its peak, after a tenth of the steps; then it falls linearly to 0.
        dropout: Probability of dropout; ``None`` keeps the model's own.
        bf16: Train in bfloat16 autocast.
        seed: Seed of order and masks.
        trust_remote_code: Whether code that comes with the base model may run; read it first.

    Returns:
        The folder.

    Raises:
        InputError: no text, an unusable model, or one whose MLM head is of no known kind; ``output`` holds
            something else or the base model, or another process is making it.

    Example:
        >>> texts = ["Rain falls from clouds.", "An index lists words."]
        >>> train_mlm("sentence-transformers/all-MiniLM-L6-v2", texts, "base", steps=100)  # doctest: +SKIP
    """
    with hold_folder(output, _KIND, inputs=[base_model]) as target:
        rows = list(texts)
        if not rows:
            raise InputError(f"{output}: no texts to train on; give some")
        set_seed(seed)
        hub_options = HubOptions(trust_remote_code=trust_remote_code)
        start = None if has_mlm_head(local_name(base_model), hub_options) else rows
        encoder = SparseEncoder.from_mlm(base_model, idf="binary", warm_start=start, hub_options=hub_options)
        modules = encoder_modules(encoder)
        model, tokenizer = cast(Any, modules.transformer.model), text_tokenizer(modules.transformer)
        if read_head(model) is None:
            raise InputError(f"{base_model}: {type(model).__name__} has an MLM head of no known kind")
        if dropout is not None:
            set_dropout(model, dropout)
        if steps:
            special = set(tokenizer.all_special_ids)  # an unknown word too: it is nothing to guess
            encoded = [
                {"input_ids": ids, "special_tokens_mask": [int(token in special) for token in ids]}
                for ids in tokenizer(rows, truncation=True, max_length=max_seq_length)["input_ids"]
            ]
            with TemporaryDirectory() as scratch:
                arguments = TrainingArguments(
                    output_dir=scratch,
                    max_steps=steps,
                    per_device_train_batch_size=batch_size,
                    learning_rate=learning_rate,
                    warmup_steps=steps // 10,
                    weight_decay=0.01,
                    bf16=bf16,
                    seed=seed,
                    save_strategy="no",
                    logging_steps=max(1, steps // 10),
                    report_to="none",
                    use_cpu=not torch.accelerator.is_available(),
                    remove_unused_columns=False,
                )
                Trainer(
                    model=_MaskedLoss(model),
                    args=arguments,
                    train_dataset=encoded,
                    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=_MASKED),
                ).train()
        tokenizer.model_max_length = position_limit(model.config)
        state_length(tokenizer)
        with replace_folder(target, _KIND) as folder:
            model.to("cpu").save_pretrained(str(folder))
            tokenizer.save_pretrained(str(folder))
            make_readable(folder)
    return local_path(output)


class _MaskedLoss(nn.Module):
    """Logits and loss at the masked positions only; one forward pass, for autocast and parallel devices."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if can_drop_padding(self.model):
            hidden, _ = states_without_padding(self.model, inputs)
            labels = labels[attention_mask.bool()]
        else:
            hidden = self.model.base_model(**inputs).last_hidden_state
        masked = labels != -100
        head = cast(MLMHead, read_head(self.model))  # of this device's copy
        logits = head.decoder(head.transform(hidden[masked]))
        return {"loss": functional.cross_entropy(logits.float(), labels[masked])}
