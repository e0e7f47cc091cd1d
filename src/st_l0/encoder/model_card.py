"""Model cards that say what is known of a model, and nothing else.

Stock's card shows texts of the training data, asks the Hub what a local path may be the name of, and sends
queries through the document encoder. Its data, filled by the trainer, are used; its text is not. The template
lies in ``model_cards``, which comes with the package.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import EvalResult, try_to_load_from_cache
from huggingface_hub.repocard_data import eval_results_to_model_index
from sentence_transformers import SparseEncoderModelCardData
from sentence_transformers.base.model_card import YAML_FIELDS
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

from st_l0.encoder.modules import extra_logs, find_encoder_modules

TRAINING_FILE = "training.json"  # beside a trained model, what `ModelCardData.training` is
_PACKAGE = Path(__file__).parents[1]
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_SPLADE_SERVED = ("bert", "distilbert", "roberta", "xlm-roberta", "camembert")


@dataclass
class ModelCardData(SparseEncoderModelCardData):
    """What the card of an encoder is made of, beside what its model and its trainer tell.

    Attributes:
        location: How the examples name a model that has no ``model_id`` yet; ``None`` is where it is saved.
        training: What `st_l0.training.train` notes of a training: ``recipe`` (YAML), ``facts`` (name to
            value), ``health`` (sentences).
        evaluation: Measurements, as `st_l0.hub.results` reads them.
        notes: What no program knows, as `st_l0.hub.notes` reads it.
        size: Bytes of all files, where they are known.
    """

    generate_widget_examples: bool = False
    location: str | None = None
    training: dict[str, Any] = field(default_factory=dict)
    evaluation: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    size: int | None = None

    def render(self) -> str:
        """The text of the card."""
        values = self.to_dict()
        return fill("card.md.jinja", card_data=_head(values), **values)

    def describes_more(self) -> bool:
        """Whether the model has another name or more is known of it than an earlier card of it can say."""
        more = (self.training, self.evaluation, self.notes, self.eval_results_dict)
        return any(more) or bool(self.model_id) or "generated_from_trainer" in self.tags

    def to_dict(self) -> dict[str, Any]:
        """The variables of the template; those that the card's head holds are plain Python."""
        name = str(self.notes.get("name") or (self.model_id or self.location or "").rpartition("/")[2])
        self.model_name = name or self.model_type
        stock = super().to_dict()
        values = {**_NOTHING, **{key: value for key, value in stock.items() if value is not None}}
        values.update(
            title=self.model_name,
            id=self.model_id or self.location or str(self.save_dir),
            notes=self.notes,
            language=self.notes.get("language") or values["language"],
            license=self.notes.get("license") or values["license"],
            training_facts=self.training.get("facts", {}),
            costs=_costs(self.evaluation),
            evaluation_tables=_tables(self.evaluation),
            references={**self.citations, **self.training.get("citations", {}), **_own(self.notes)},
            size_in_mb=None if self.size is None else self.size / 1e6,
            with_rows=any(one.get("rows") for one in self.notes.get("datasets", ())),
            tags=list(dict.fromkeys([*self.tags, *self.training.get("tags", ())])),
            hyperparameters={
                key: value
                for key, value in (self.non_default_hyperparameters or {}).items()
                if not _is_path(value)
            },
            **self._of_the_model(),
        )
        values["datasets"] = list(dict.fromkeys([*self.datasets, *_ids(self.notes.get("datasets", ()))]))
        index = [one for one in values.get("model-index") or () if one.get("results")]
        results = [one for entry in index for one in entry["results"] if one["dataset"]["type"] != "unknown"]
        own = [result for one in self.evaluation for result in _index_entries(one)]
        if own:
            results += eval_results_to_model_index(self.model_name, own)[0]["results"]
        values["model-index"] = [{"name": self.model_name, "results": results}] if results else None
        values["widget"] = None
        return {key: plain(value) for key, value in values.items()}

    def to_yaml(self, line_break: Any = None, original_order: list[str] | None = None) -> str:
        """The head of the card."""
        return _head(self.to_dict(), line_break)

    def _of_the_model(self) -> dict[str, Any]:
        model: Any = self.model
        modules = find_encoder_modules(list(model.children()))
        poolings = [one for one in model.modules() if isinstance(one, SpladePooling)]
        logs = extra_logs(poolings[0]) if poolings else None
        tables = sum(one.weight.numel() for one in model.modules() if isinstance(one, SparseStaticEmbedding))
        limit = None if modules is None or modules.query is None else modules.tokenizer.model_max_length
        return {
            "inference_free": modules is not None and modules.query is not None,
            "dims": model.get_embedding_dimension(),
            "parameters": sum(one.numel() for one in model.parameters()) - tables,
            "document_length": model.max_seq_length,
            "bm25_weight": getattr(model, "bm25_weight", None),
            "query_length": limit if limit is not None and limit < 1 << 30 else None,
            "prompts": {name: text for name, text in model.prompts.items() if text},
            "formula": None if logs is None else _formula(logs, poolings[0].pooling_strategy),
            "engines": {} if modules is None else _engines(logs, poolings[0], modules.transformer),
        }

    def set_losses(self, losses: Any) -> None:
        """Name the losses that there are: stock names ``NoneType`` where a regularizer is left out."""
        super().set_losses([loss for loss in losses if loss is not None])

    def set_base_model(self, model_id: str, revision: Any = None) -> bool:
        """Note what the model was loaded from if that is on the Hub; nobody is asked."""
        if Path(model_id).exists() or not HUB_ID.fullmatch(model_id):
            return False
        self.base_model, self.base_model_revision = model_id, getattr(revision, "resolved", None)
        return True

    def try_to_set_base_model(self) -> None:
        """Name the base model where it is known to come from the Hub: it was downloaded from there."""
        model: Any = self.model
        name = str(getattr(getattr(model.transformers_model, "config", None), "_name_or_path", ""))
        if HUB_ID.fullmatch(name) and isinstance(try_to_load_from_cache(name, "config.json"), str):
            self.set_base_model(name)

    def set_widget_examples(self, dataset: Any) -> None:
        """Show nothing: they would be texts of the training data."""

    def run_usage_snippet(self) -> None:
        """Encode nothing: the example shows no numbers of this model."""

    def generate_usage_snippet(self) -> str:
        """Nothing: the template has the examples."""
        return ""

    def _render_examples_table(self, dataset_info: Any, asset_counter: int = 0) -> tuple[str, int]:
        return "", asset_counter  # rows of the training data


# What the template asks for and stock leaves out, or has as None.
_NOTHING: dict[str, Any] = {
    **dict.fromkeys(("base_model", "base_model_revision", "license", "max_active_dims", "eval_lines")),
    **dict.fromkeys(("language", "eval_metrics", "train_datasets"), ()),
}


def write_training(folder: Path, training: Mapping[str, Any]) -> None:
    """Write what is known of a training beside the model, for later cards."""
    text = json.dumps(training, ensure_ascii=False, indent=1)
    (folder / TRAINING_FILE).write_text(text + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """The same without numbers of numpy and torch, which YAML would write as Python objects."""
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def _head(values: Mapping[str, Any], line_break: Any = None) -> str:
    known = {
        key: value for key, value in values.items() if key in YAML_FIELDS and value not in (None, [], ())
    }
    return yaml.safe_dump(known, sort_keys=False, allow_unicode=True, line_break=line_break).strip()


def fill(template: str, **values: Any) -> str:
    """Fill a template of ``model_cards``: of an installed package, else of the repository it is run from."""
    installed = _PACKAGE / "model_cards"
    folder = installed if installed.is_dir() else _PACKAGE.parents[1] / "model_cards"
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string((folder / template).read_text(encoding="utf-8")).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _formula(logs: int, pooling: str) -> str:
    formula = "log(1 + relu(x))"
    for _ in range(logs):
        formula = f"log(1 + {formula})"
    over = "largest" if pooling == "max" else "sum"
    return f"{formula} of the logit x, the {over} over the text"


def _engines(logs: int | None, pooling: Any, transformer: Any) -> dict[str, str]:
    """Which servers and encoders of others compute these vectors themselves; by their documentation."""
    largest, kind = pooling.pooling_strategy == "max", transformer.model.config.model_type
    one, two = largest and logs == 0, largest and logs == 1
    return {
        "sentence-transformers": "yes" if logs in (0, 1) else "no: it knows one log or two",
        "OpenSearch, documents and queries encoded by a client": "yes",
        "OpenSearch, queries by its own `sparse_tokenize` model": "yes: `tokenizer.json` and `idf.json`",
        "text-embeddings-inference (`--pooling splade`)": (
            "by its documentation, for documents"
            if one and kind in _SPLADE_SERVED
            else "no: it takes one log, and BERT, DistilBERT or RoBERTa"
        ),
        "FastEmbed": "by its documentation, from an ONNX file" if two else "no: it takes two logs",
    }


def _costs(evaluation: list[dict[str, Any]]) -> dict[str, str]:
    """Means over the collections of what vectors cost."""
    names = {"flops": ("FLOPS", ".2f"), "document_active_dims": ("Active dims of a document", ".0f")}
    names["query_active_dims"] = ("Active dims of a query", ".1f")
    found = {}
    for key, (name, form) in names.items():
        values = [one["costs"][key] for one in evaluation if key in one.get("costs", {})]
        if values:
            found[name] = f"{sum(values) / len(values):{form}}"
    return found


def _tables(evaluation: list[dict[str, Any]]) -> list[str]:
    """A Markdown table for each protocol: a row a collection."""
    tables = []
    for source in dict.fromkeys(one["source"] for one in evaluation):
        rows = [one for one in evaluation if one["source"] == source]
        metrics = list(dict.fromkeys(name for one in rows for name in one["metrics"]))
        columns = [
            *((name, "metrics", name, ".3f") for name in metrics),
            *((f"{name} of BM25", "bm25", name, ".3f") for name in metrics),
            ("FLOPS", "costs", "flops", ".2f"),
            ("active dims", "costs", "document_active_dims", ".0f"),
        ]
        table = {
            head: (form, [one.get(kind, {}).get(name) for one in rows]) for head, kind, name, form in columns
        }
        table = {head: column for head, column in table.items() if any(one is not None for one in column[1])}
        lines = [["", *table], ["---"] * (len(table) + 1)]
        for place, one in enumerate(rows):
            lines.append(
                [one["collection"], *(_number(values[place], form) for form, values in table.values())]
            )
        if len(rows) > 1:
            lines.append(["mean", *(_number(_mean(values), form) for form, values in table.values())])
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        notes = dict.fromkeys(note for one in rows for note in one.get("notes", ()))
        tables.append("\n\n".join([f"{source}:", text, *([" ".join(notes)] if notes else [])]))
    return tables


def _mean(values: list[float | None]) -> float | None:
    """The mean; none where a number is lacking."""
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if len(found) == len(values) else None


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _index_entries(one: dict[str, Any]) -> list[EvalResult]:
    optional = {f"dataset_{name}": one[name] for name in ("config", "split", "revision") if one.get(name)}
    return [
        EvalResult(
            task_type="text-retrieval",
            task_name="Retrieval",
            dataset_type=one.get("dataset") or one["collection"],
            dataset_name=one["collection"],
            metric_type=name.lower().replace("@", "_at_"),
            metric_name=name,
            metric_value=float(value),
            **optional,
        )
        for name, value in one["metrics"].items()
    ]


def _ids(datasets: Any) -> list[str]:
    return [one["id"] for one in datasets if one.get("id")]


def _own(notes: Mapping[str, Any]) -> dict[str, str]:
    return {"References": notes["citation"]} if notes.get("citation") else {}


def _is_path(value: Any) -> bool:
    """Whether a setting is a path of this machine, which tells others nothing."""
    return isinstance(value, str) and ("/" in value or "\\" in value)
