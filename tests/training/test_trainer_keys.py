"""Every argument of the trainer works, is proven, or is refused: none is silently without effect."""

import copy
import dataclasses
import pickle
import re
import time

import pytest
import yaml
from sentence_transformers.sparse_encoder.training_args import SparseEncoderTrainingArguments

from st_l0.errors import InputError
from st_l0.training.recipe import Recipe, load_recipe
from st_l0.training.trainer_keys import NO_EFFECT, training_types
from st_l0.training.yaml_text import Secret

# What any value of the right type does as it says.
WORKS = {
    *("max_grad_norm", "learning_rate", "weight_decay", "warmup_steps", "num_train_epochs", "bf16", "tf32"),
    *(
        "torch_compile",
        "logging_strategy",
        "logging_first_step",
        "log_on_each_node",
        "logging_nan_inf_filter",
    ),
    *(
        "disable_tqdm",
        "run_name",
        "project",
        "trackio_space_id",
        "trackio_bucket_id",
        "trackio_static_space_id",
    ),
    *("save_only_model", "save_on_each_node", "enable_jit_checkpoint", "hub_token", "hub_private_repo"),
    *("hub_strategy", "hub_always_push", "hub_revision", "ignore_data_skip", "full_determinism", "use_cpu"),
    *("restore_callback_states_from_checkpoint", "dataloader_drop_last", "dataloader_pin_memory"),
    *(
        "dataloader_persistent_workers",
        "ddp_find_unused_parameters",
        "ddp_static_graph",
        "skip_memory_metrics",
    ),
    *("gradient_checkpointing", "activation_checkpointing"),
}
# A value of the right type that is refused as the recipe is read; what is refused before data and model are
# read is in `test_train_model`.
REFUSED = {
    "per_device_train_batch_size": 10**7,
    "max_steps": 2**31,
    "gradient_accumulation_steps": 0,
    "lr_scheduler_type": "linaer",
    "lr_scheduler_kwargs": {},
    "optim": "adamw_torch_fuse",
    "optim_target_modules": "all-linear",
    "adam_beta1": 1,
    "adam_beta2": -0.1,
    "adam_epsilon": 0,
    "warmup_ratio": 1e300,
    "torch_empty_cache_steps": 0,
    "activation_checkpointing_kwargs": {},
    "gradient_checkpointing_kwargs": {},
    "logging_steps": 0,
    "log_level": "loud",
    "log_level_replica": "loud",
    "save_strategy": "never",
    "save_steps": -1,
    "save_total_limit": 0,
    "accelerator_config": {"split_batches": True},
    "dataloader_num_workers": 10**6,
    "dataloader_prefetch_factor": 0,
    "ddp_bucket_cap_mb": 0,
    "ddp_backend": "abc",
    "ddp_timeout": 10**12,
    "fsdp_config": "abc",
    "prompts": {"query": 1},
    "batch_sampler": "group_by_label",
    "learning_rate_mapping": {"bert": "fast"},
}
REFUSED_LATER = {
    "load_best_model_at_end",  # without the section evaluation
    *("report_to", "optim_args", "fp16", "torch_compile_backend", "torch_compile_mode", "hub_model_id"),
    *("push_to_hub", "fsdp", "deepspeed", "debug"),
}
OWNED = {"output_dir", "router_mapping", "seed"}
FIELDS = {spec.name: spec for spec in dataclasses.fields(SparseEncoderTrainingArguments)}


def recipe(**training):
    return Recipe(
        model={"base_model": "m"},
        data={"train": "t.jsonl"},
        loss={"document_regularizer_weight": 0},
        training={"max_steps": 1, **training},
        output="o",
    )


def refusal(**training):
    with pytest.raises(InputError) as caught:
        recipe(**training)
    return str(caught.value)


def test_each_argument_is_in_one_place():
    """A release with another argument fails here: see whether it works, and what refuses wrong values."""
    groups = [WORKS, REFUSED.keys(), REFUSED_LATER, NO_EFFECT.keys(), OWNED]
    assert sum(map(len, groups)) == len(set().union(*groups))
    assert FIELDS.keys() - set().union(*groups) == set()
    assert training_types().keys() == FIELDS.keys() - OWNED


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_values_out_of_range(key):
    assert refusal(**{key: REFUSED[key]}).startswith(f"training.{key}")


@pytest.mark.parametrize("key", sorted(NO_EFFECT))
def test_what_has_no_effect_is_refused_with_what_to_do_instead(key):
    for value in ("abc", True, 3, -1.5, [1], {"a": 1}):
        if value != FIELDS[key].default:
            assert refusal(**{key: value}) == f"training.{key} has no effect: {NO_EFFECT[key]}"
    default = FIELDS[key].default
    if default is not dataclasses.MISSING:
        assert key in recipe(**{key: default}).training


@pytest.mark.parametrize("key", sorted(training_types()))
def test_nothing_but_an_input_error_whatever_the_value(key):
    values = [None, True, -1, 0, 0.5, 1e-300, 1e300, float("nan"), float("inf"), 10**400, "", "abc", "\0"]
    values += ["\ud800", [], [None], [[]], {}, {"a": 1}, {1: 2}, {"a": {"b": float("nan")}}, object()]
    for value in values:
        try:
            made = recipe(**{key: value})
        except InputError as error:
            assert len(str(error).splitlines()) == 1
            assert str(error).startswith("training")
        else:
            yaml.safe_load(made.to_yaml())


def test_arguments_that_need_another():
    assert refusal(hub_strategy="end") == "training.hub_strategy has no effect without training.push_to_hub"
    assert refusal(dataloader_persistent_workers=True).endswith("without training.dataloader_num_workers")
    assert refusal(warmup_ratio=0.1, warmup_steps=5).startswith("training.warmup_ratio has no effect beside")
    assert refusal(prompts={"query": "q: ", "passage": "p: "}).startswith(
        "training.prompts.passage is no col"
    )
    assert recipe(hub_strategy="end", push_to_hub=False)  # switched off for now
    assert recipe(warmup_ratio=0.1, warmup_steps=0)


TOKEN = "hf_abcdefghijklmnop"


def test_a_token_is_used_but_never_written():
    made = recipe(hub_token=TOKEN, lr_scheduler_type="linear", lr_scheduler_kwargs={"api_key": TOKEN, "a": 1})
    token = made.training["hub_token"]
    assert f"Bearer {token}" == f"Bearer {TOKEN}"
    assert TOKEN not in made.to_yaml()
    assert yaml.safe_load(made.to_yaml())["training"]["lr_scheduler_kwargs"] == {"a": 1}
    assert isinstance(token, Secret)
    for written in (
        repr(token),
        pickle.dumps(token).decode("latin1"),
        copy.deepcopy({"token": token})["token"],
    ):
        assert TOKEN not in written
    arguments = SparseEncoderTrainingArguments(output_dir="o", hub_token=token, use_cpu=True)
    assert arguments.hub_token == TOKEN
    assert TOKEN.encode() not in pickle.dumps(arguments)


@pytest.mark.parametrize(
    "override",
    [f"training.hub_token=[{TOKEN}]", f"training.hub_token={{{TOKEN}", f"training.hub_token.x={TOKEN}"],
)
def test_a_token_is_in_no_message(tmp_path, override):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"training:\n  hub_token: [{TOKEN}]\n" + yaml.safe_dump({"output": "o"}))
    for overrides in ((), (override,)):
        with pytest.raises(InputError) as caught:
            load_recipe(path, overrides)
        assert TOKEN not in str(caught.value)


def test_aliases_that_would_fill_the_memory(tmp_path):
    path = tmp_path / "recipe.yaml"
    lines = ["a: &a0 [x, x]"] + [
        f"b{level}: &a{level + 1} [{', '.join([f'*a{level}'] * 9)}]" for level in range(6)
    ]
    path.write_text("\n".join(lines))
    start = time.perf_counter()
    with pytest.raises(
        InputError, match=re.escape("holds more than 100,000 values (aliases are written out)")
    ):
        load_recipe(path)
    merged = ["a: &a0 {x: 1}"] + [
        f"b{level}: &a{level + 1} {{<<: [{', '.join([f'*a{level}'] * 9)}]}}" for level in range(6)
    ]
    path.write_text("\n".join(merged))
    with pytest.raises(InputError, match="holds more than"):
        load_recipe(path)
    assert time.perf_counter() - start < 5


def test_keys_are_given_twice_at_any_depth(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("a:\n  - b: 1\n    b: 2\n")
    with pytest.raises(InputError, match=r"recipe.yaml:3: a.b is given twice, first in line 2"):
        load_recipe(path)


def test_a_file_that_is_far_too_large(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"query": "a"}\n' * 20_000)
    with pytest.raises(InputError, match=r"more than 262,144 bytes: give the path of a YAML file"):
        load_recipe(path)
