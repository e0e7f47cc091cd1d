#!/usr/bin/env bash
# transformers 5.23.0: texts set one after the other are kept apart in decoders, and in encoders they are not.
#
# DataCollatorWithFlattening sets texts one after the other, without padding and without a mask, with positions that
# begin anew and, for flash attention, the lengths (cu_seq_lens_q and so on). With SDPA a decoder such as Llama sees
# by the positions where a text ends, and each gets what it gets alone. An encoder looks at neither positions nor
# lengths: in BERT, XLM-RoBERTa and ModernBERT each token attends to all texts, without an error or a warning. So does
# a decoder outside of a training, as its cache is on by default. What follows: encoders are packed with flash
# attention only, or with an attention of one's own.
#
# Seen (largest difference to the texts alone): Llama without cache 0, with it 0.99; BERT 0.011; XLM-RoBERTa 0.016;
# ModernBERT 0.0051, all of random weights.
#
# It installs torch, which on Linux is some gigabytes: minutes instead of seconds.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 torch==2.13.0
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON'
import torch
import transformers as tf

shape = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
torch.manual_seed(0)
texts = [torch.randint(5, 100, (length,)).tolist() for length in (6, 4)]
collate = tf.DataCollatorWithFlattening(return_position_ids=True, return_flash_attn_kwargs=True)
batch = collate([{"input_ids": text} for text in texts])
batch.pop("labels")
assert batch["position_ids"].tolist() == [[*range(6), *range(4)]] and "attention_mask" not in batch
assert batch["cu_seq_lens_q"].tolist() == [0, 6, 10]


def difference(model, first_position=0, **options):
    """Of the states of the texts set one after the other from those of each alone."""
    model = model.eval()
    assert model.config._attn_implementation == "sdpa"
    with torch.no_grad():
        alone = [model(input_ids=torch.tensor([text])).last_hidden_state for text in texts]
        moved = {**batch, "position_ids": batch["position_ids"] + first_position}
        together = model(**moved, **options).last_hidden_state
    return (together - torch.cat(alone, 1)).abs().max().item()


llama = tf.LlamaModel(tf.LlamaConfig(**shape))
modernbert = tf.ModernBertConfig(**shape, cls_token_id=1, sep_token_id=2)
found = {
    "Llama, use_cache=False": difference(llama, use_cache=False),
    "Llama": difference(llama),
    "BERT": difference(tf.BertModel(tf.BertConfig(**shape))),
    "XLM-RoBERTa": difference(tf.XLMRobertaModel(tf.XLMRobertaConfig(**shape)), first_position=1),
    "ModernBERT": difference(tf.ModernBertModel(modernbert)),
}
for name, value in found.items():
    print(f"{name}: {value:.2g}")
assert found.pop("Llama, use_cache=False") < 1e-5
assert all(value > 1e-3 for value in found.values())
PYTHON
