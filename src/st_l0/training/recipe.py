"""A training run as data: a YAML file over one validated dataclass.

Relative paths in a recipe are relative to the current directory, not to the recipe.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from st_l0.training.data_settings import Data
from st_l0.training.evaluation_settings import Evaluation
from st_l0.training.loss_settings import Loss
from st_l0.training.recipe_files import find_recipe
from st_l0.training.recipe_paths import local_names, local_teachers
from st_l0.training.settings import Section, SettingError, load
from st_l0.training.trainer_keys import (
    NO_EFFECT,
    TRAINING_BOUNDS,
    check_owned,
    check_training,
    training_help,
    training_types,
)
from st_l0.training.yaml_text import without_secrets

_PATH = {"then": local_names}
_TRAINING_PATHS = {"deepspeed", "fsdp_config", "accelerator_config"}


@dataclass(frozen=True)
class Model(Section):
    """The model to start from and the shape of its two sides.

    Attributes:
        base_model: Hub id or folder of a masked language model, or of an existing `SparseEncoder` checkpoint;
            a siamese one counts as the masked language model in it, unless ``queries`` is ``"model"``.
        queries: What makes query weights: ``"table"``, the weights of ``idf`` as they are;
            ``"trained_table"``, trained from there; ``"learned_scores"``, a score learned from each token's
            embedding (Li-LSR); ``"model"``, the masked language model itself (siamese SPLADE, not
            inference-free).
        idf: Path of an ``idf.json`` or ``idf.json.gz``; ``"binary"`` weighs every query token 1; ``None``
            keeps the table of the checkpoint that ``base_model`` is. Only for the two tables.
        punctuation: Whether punctuation keeps its weight in the table of a new model, as in published ones;
            by default it weighs 0 (see `st_l0.SparseEncoder.from_mlm`), or starts there if it is trained.
        query_learning_rate: Learning rate of what is trained of the query side, without weight decay;
            ``None`` is ``training.learning_rate``. A table wants about a hundred times that of the model.
        activation: ``"relu"`` for log(1 + relu(x)), ``"log1p_relu"`` for one more log, or the number of
            extra logs. ``None`` is ``"relu"``, or what a trained checkpoint states.
        pooling: How the weights of a token at all positions become one. ``None`` is ``"max"``, or what a
            trained checkpoint states.
        max_seq_length: Tokens of a document (and of a query that runs the model), the special tokens among
            them; the rest is cut off. ``None`` is 256, or what a trained checkpoint states.
        warm_start: Path of texts for the closed-form start of the head, for base models that have none.
        trust_remote_code: Whether code that comes with ``base_model`` may run; read it first.
        dropout: Probability of dropout in training; ``None`` keeps the base model's own. A short run on a CPU
            does without: it takes a fourth of the time.
    """

    base_model: str = field(metadata=_PATH)
    queries: Literal["table", "trained_table", "learned_scores", "model"] = "table"
    idf: str | None = field(default=None, metadata=_PATH)
    punctuation: bool = False
    query_learning_rate: float | None = field(default=None, metadata={"more_than": 0})
    activation: Literal["relu", "log1p_relu", 0, 1, 2, 3] | None = None
    pooling: Literal["max", "sum"] | None = None
    max_seq_length: int | None = field(default=None, metadata={"at_least": 8})
    warm_start: str | None = field(default=None, metadata=_PATH)
    dropout: float | None = field(default=None, metadata={"at_least": 0, "less_than": 1})
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.idf is not None and self.queries in ("learned_scores", "model"):
            raise SettingError(f"must be left out where queries is {self.queries}", ("idf",))
        if self.punctuation and self.queries in ("learned_scores", "model"):
            raise SettingError(f"is of no use where queries is {self.queries}", ("punctuation",))
        if self.query_learning_rate is not None and self.queries not in ("trained_table", "learned_scores"):
            raise SettingError(
                f"is of no use where queries is {self.queries}: nothing of its own is trained",
                ("query_learning_rate",),
            )


@dataclass(frozen=True)
class PromptedTeacher(Section):
    """A teacher that wants something before its texts, and does not say so itself.

    Attributes:
        model: ``kind:model``, dense or sparse.
        query_prompt: What it reads before a query, such as ``"query: "``; ``None``: what the model says.
        document_prompt: The same before a document.
    """

    model: str
    query_prompt: str | None = None
    document_prompt: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        (model,) = local_teachers((self.model,))
        object.__setattr__(self, "model", model)


@dataclass(frozen=True)
class Teachers(Section):
    """Models that score the documents while the model trains, as one ensemble.

    Attributes:
        models: ``kind:model`` each, such as ``dense:Alibaba-NLP/gte-large-en-v1.5``; kinds are dense, sparse,
            cross-encoder, seq2seq, bm25 and vectors, see `st_l0.teachers.load_teacher`. Where an embedding
            model wants a prompt that it does not say itself (``prompts`` of its
            ``config_sentence_transformers.json``), ``{model: …, query_prompt: …, document_prompt: …}``.
        weights: What each counts in the mean; ``None``: all the same.
        scale: What the mean of the scores, each min-max normalised to 0 … 1 per query, is multiplied by.
        batch_size: Texts that a teacher takes at once.
        trust_remote_code: Whether code that comes with a teacher may run; read it first.
        sentence_queries: Sentences of the training documents, at most, that join the queries of the training
            data in what ``extra_queries`` are found among; which, follows from ``seed``. Where a teacher's
            vectors are stored, out of the sentences that have some.
        extra_queries: Queries of the training data, at most, that the documents of a device's batch are
            ranked for beside its own: drawn from the 32 that each teacher finds nearest to each of them, or
            ``"all"`` of these. They cost a lookup each where the queries run no model. Only for teachers that
            embed, with ``loss.in_batch_negatives``, and for ``kl``.
    """

    models: tuple[str | PromptedTeacher, ...] = field(metadata={"then": local_teachers})
    weights: tuple[float, ...] | None = None
    scale: float = field(default=30.0, metadata={"more_than": 0})
    batch_size: int = field(default=32, metadata={"at_least": 1})
    extra_queries: int | Literal["all"] = field(default=0, metadata={"at_least": 0})
    sentence_queries: int = field(default=0, metadata={"at_least": 0})
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights is not None and not (
            len(self.weights) == len(self.models) and all(weight > 0 for weight in self.weights)
        ):
            raise SettingError("must be as many positive numbers as there are models", ("weights",))
        if self.sentence_queries and not self.extra_queries:
            raise SettingError("is of no use without extra_queries", ("sentence_queries",))

    @property
    def specs(self) -> tuple[str, ...]:
        """``models`` without prompts."""
        return tuple(one.model if isinstance(one, PromptedTeacher) else one for one in self.models)

    @property
    def prompts(self) -> list[dict[str, str]]:
        """For each model the prompts that the recipe gives it, by ``query`` and ``document``."""
        pairs = [
            {"query": one.query_prompt, "document": one.document_prompt}
            if isinstance(one, PromptedTeacher)
            else {}
            for one in self.models
        ]
        return [{side: text for side, text in pair.items() if text is not None} for pair in pairs]


@dataclass(frozen=True)
class Recipe(Section):
    """A whole training run. Sections may be given as plain mappings.

    Attributes:
        model: See `Model`.
        data: See `Data`.
        loss: See `Loss`.
        training: Arguments of `sentence_transformers.SparseEncoderTrainingArguments`, checked by name, type
            and range; ``max_steps`` or ``num_train_epochs`` must be among them, and those that the recipe
            sets itself (``output_dir``, ``router_mapping``, ``seed``) or that do nothing here must not.
            ``prompts`` (a text, or texts by column, ``query`` and ``document``) are saved with the model,
            whose own are taken otherwise.
        output: Folder for the result.
        teachers: See `Teachers`; ``None`` where the data hold the scores, or none are needed.
        evaluation: See `Evaluation`; ``None`` measures nothing while the model trains.
        seed: Seed of the run.
        ignore_health: Go on, and save the model, where the training cannot learn or has silenced every
            document; what is not finite ends it all the same.

    Raises:
        InputError: A value has the wrong type or is impossible; the message names the full key.
    """

    model: Model
    data: Data
    loss: Loss
    training: dict[str, Any] = field(
        metadata={
            "entries": training_types,
            "bounds": TRAINING_BOUNDS,
            "fixed": NO_EFFECT,
            "help": training_help,
        }
    )
    output: str = field(metadata=_PATH)
    teachers: Teachers | None = None
    evaluation: Evaluation | None = None
    seed: int = field(default=42, metadata={"at_least": 0, "less_than": 2**32})
    ignore_health: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.training, dict):
            check_owned(self.training)
        super().__post_init__()
        for name in _TRAINING_PATHS & self.training.keys():
            self.training[name] = local_names(self.training[name], ("training", name))
        check_training(self.training, evaluated=self.evaluation is not None)
        if self.training.get("max_steps", -1) > 0:
            self.check_steps(self.training["max_steps"])
        if self.loss.query_regularizer_weight and self.model.queries == "table":
            raise SettingError(
                "must be 0: model.queries is a table, which is not trained",
                ("loss", "query_regularizer_weight"),
            )
        for name in ("fsdp", "deepspeed") if self.loss.target_sample is not None else ():
            if self.training.get(name):
                problem = "does not go with loss.target_sample, which one process measures alone"
                raise SettingError(problem, ("training", name))
        if self.teachers is not None and not self.loss.distils:
            raise SettingError("are of no use: loss.ranking names neither kl nor margin_mse", ("teachers",))
        if self.teachers is not None and self.teachers.extra_queries:
            self._check_extra_queries()

    def _check_extra_queries(self) -> None:
        if "kl" not in self.loss.ranking or not self.loss.in_batch_negatives:
            problem = "needs kl among loss.ranking, with loss.in_batch_negatives: true"
        elif self.model.queries == "model":
            problem = "must be 0 where model.queries is model: each query would run it"
        elif self.model.queries != "table" and (self.training.get("fsdp") or self.training.get("deepspeed")):
            problem = "must be 0 where fsdp or deepspeed divides query weights that are trained"
        else:
            return
        raise SettingError(problem, ("teachers", "extra_queries"))

    def check_steps(self, steps: int) -> None:
        """Refuse a ramp that is longer than a training of ``steps`` steps, or a target without a measurement.

        Raises:
            SettingError: The ramp is longer, or nothing is measured between its end and that of the training.
        """
        if steps < self.loss.ramp_steps:
            problem = f"must not be longer than the training ({steps} steps), not {self.loss.ramp_steps}"
            raise SettingError(problem, ("loss", "ramp_steps"))
        sample = self.loss.target_sample
        if sample is not None and not sample.measurements(self.loss.ramp_steps, steps):
            problem = f"must leave a measurement between ramp (step {self.loss.ramp_steps}) and end ({steps})"
            raise SettingError(problem, ("loss", "target_sample", "steps"))

    def check_documents(self, documents_per_query: int) -> None:
        """Refuse a ranking loss that would compare a single document with nothing.

        Raises:
            SettingError: there is one.
        """
        for name in self.loss.ranking if documents_per_query == 1 else ():
            in_batch = self.loss.in_batch_negatives
            compares = name == "infonce" if in_batch is None else in_batch
            # The scores that data hold are of a query's own documents, and a margin needs two of them.
            if not compares or (name == "margin_mse" and self.teachers is None):
                problem = "has nothing to rank: the data hold one document a query; give negatives"
                raise SettingError(problem, ("loss", "ranking", name))

    def to_yaml(self) -> str:
        """The recipe as YAML with every key written out, but for secrets such as ``training.hub_token``.

        `load_recipe` reads it back to an equal recipe.
        """
        plain: dict[str, Any] = without_secrets(dataclasses.asdict(self))
        plain["data"]["train"] = list(plain["data"]["train"])
        plain["data"]["columns"] = {word: list(keys) for word, keys in self.data.columns.items()}
        if self.evaluation is not None:
            plain["evaluation"]["collections"] = list(self.evaluation.collections)
        if self.loss.target_sample is not None:
            plain["loss"]["target_sample"]["collections"] = list(self.loss.target_sample.collections)
        if self.teachers is not None:
            plain["teachers"]["models"] = list(plain["teachers"]["models"])
            if self.teachers.weights is not None:
                plain["teachers"]["weights"] = list(self.teachers.weights)
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: A YAML file with the sections and keys of `Recipe`, or the name of a recipe of the package, such
            as ``"l0_mask"`` (see `st_l0.training.recipe_files.find_recipe`). Relative paths in it are
            relative to the current directory.
        overrides: ``"key.path=value"`` strings such as ``"training.max_steps=10"``, applied in order; the
            value is read as YAML.

    Raises:
        InputError: The file cannot be read, is not YAML in UTF-8 or repeats a key; a key is unknown or
            missing; a value has the wrong type or is impossible. The message is one line and says where.
    """
    return load(Recipe, find_recipe(path), overrides)
