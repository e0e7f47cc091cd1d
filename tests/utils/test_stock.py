"""The names of sentence-transformers and of transformers' trainer that they keep to themselves are there."""

import pkgutil
import re
from pathlib import Path

import pytest
import sentence_transformers
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

import st_l0
from st_l0.utils import stock

# Read, called or imported by `st_l0.utils.stock`; what only instances have is asked of instances below.
USED = [
    "sentence_transformers:SparseEncoder._module_classes",
    "sentence_transformers:SparseEncoder._can_flatten_inputs",
    "sentence_transformers:SparseEncoder._resolve_prompt",
    "sentence_transformers.base.losses.merged_forward:embed_columns",
    "sentence_transformers.util:batch_to_device",
    "sentence_transformers.util:get_device_name",
    "sentence_transformers.util:load_file_path",
    "sentence_transformers.util:select_max_active_dims",
    "transformers.integrations.integration_utils:INTEGRATION_TO_CALLBACK",
    "transformers.integrations.integration_utils:get_available_reporting_integrations",
]
# Overridden or inherited by a class of ours, under the name that stock gives it.
INHERITED = {
    "encoder.sparse_encoder:SparseEncoder": [
        "encode", "encode_document", "encode_query", "save", "similarity",
    ],
    "encoder.fused_encoder:FusedEncoder": [
        "_create_model_card", "_get_model_config", "forward", "max_seq_length", "push_to_hub",
    ],
    "encoder.model_card:ModelCardData": [
        "_render_examples_table", "generate_usage_snippet", "generate_widget_examples", "run_usage_snippet",
        "set_base_model", "set_losses", "set_widget_examples", "to_dict", "to_yaml", "try_to_set_base_model",
    ],
    "encoder.loading:AnyDepthPooling": ["load"],
    "encoder.loading:CheckedTransformer": ["_load_model", "load"],
    "encoder.loading:TableLoader": ["load"],
    "evaluation.evaluators:IndexInformationRetrievalEvaluator": [
        "compute_all_metrics", "compute_metrics", "description", "embed_inputs", "output_scores",
    ],
    "evaluation.evaluators:IndexNanoBEIREvaluator": ["description", "information_retrieval_class"],
    "training.trainer:SparseRetrievalTrainer": [
        "_determine_best_metric", "_get_grad_norm", "_load_best_model", "_load_from_checkpoint",
        "_load_optimizer_and_scheduler", "_save_checkpoint", "compute_loss", "evaluate",
        "get_decay_parameter_names", "log", "track_loss_components", "training_step",
    ],
}  # fmt: skip


def missing():
    """The names that the installed versions lack."""
    gone = []
    for path in USED:
        try:
            pkgutil.resolve_name(path)
        except (AttributeError, ImportError):
            gone.append(path)
    for path, names in INHERITED.items():
        stocks = pkgutil.resolve_name(f"st_l0.{path}").__mro__[1:]
        gone += [f"{path}.{name}" for name in names if not any(name in vars(one) for one in stocks)]
    return gone


def test_every_name_is_there():
    assert missing() == []


@pytest.mark.parametrize(
    ("name", "reported"),
    [
        ("sentence_transformers.base.model.BaseModel._resolve_prompt", USED[2]),
        ("sentence_transformers.base.losses.merged_forward.embed_columns", USED[3]),
        (
            "transformers.Trainer._save_checkpoint",
            "training.trainer:SparseRetrievalTrainer._save_checkpoint",
        ),
    ],
)
def test_a_name_that_is_gone_is_told(monkeypatch, name, reported):
    monkeypatch.delattr(name)
    assert missing() == [reported]


def test_every_private_name_that_is_overridden_is_listed():
    for path, names in INHERITED.items():
        ours, *stocks = pkgutil.resolve_name(f"st_l0.{path}").__mro__
        private = {name for name in vars(ours) if re.match("_(?!_|abc_impl)", name)}
        assert {name for name in private if any(name in vars(one) for one in stocks)} <= set(names), path


def test_what_only_instances_have(tiny_encoder, tmp_path):
    model = tiny_encoder()
    router, query, transformer, pooling = stock.routed_modules(model)
    assert [router] == list(model.children())
    assert [type(module) for module in (query, transformer, pooling)] == [
        SparseStaticEmbedding, Transformer, SpladePooling,
    ]  # fmt: skip
    assert stock.forward_arguments(transformer) == (vars(transformer)["model_forward_params"] or set())
    assert stock.card_text(model) is None
    arguments = sentence_transformers.SparseEncoderTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    arguments._n_gpu = 4
    assert arguments.n_gpu == 4
    stock.use_one_gpu(arguments)
    assert arguments.n_gpu == 1


def test_an_encoder_without_a_router_has_no_routes(tiny_encoder):
    assert stock.routed_modules(tiny_encoder(idf=None)) is None


def test_no_other_file_uses_them():
    names = [path.rpartition(".")[2].rpartition(":")[2] for path in USED]
    private = [name for name in names if re.match("_[a-z]", name)] + [
        "_modules", "_n_gpu", "model_forward_params",
    ]  # fmt: skip
    use = re.compile(rf"\.({'|'.join(private)})\b")
    sources = Path(st_l0.__file__).parent
    used = {path.name for path in sources.rglob("*.py") if use.search(path.read_text(encoding="utf-8"))}
    assert used == {"stock.py"}
