"""What a run and its dry run refuse alike, with one message; what a recipe alone can tell is in `Recipe`."""

from __future__ import annotations

from st_l0.encoder.hub_options import HubOptions
from st_l0.encoder.structure import is_siamese
from st_l0.errors import InputError
from st_l0.teachers.loading import check_prompts, split_spec
from st_l0.training.recipe import Model, Recipe, Teachers
from st_l0.utils.files import FileKind, check_file, check_folder
from st_l0.utils.paths import local_path

# First line of the recipe that a training leaves, by which a later one knows what it may replace.
WRITTEN = "# Every key of a training, as st-l0 train has written it."


def is_trained_encoder(settings: Model, kind: str) -> bool:
    """Whether ``base_model`` is taken as the encoder that it is, after a look at what does not go with that.

    A siamese encoder is the masked language model in it, where queries are to run none.

    Args:
        settings: The section of the recipe.
        kind: What `st_l0.encoder.pretrained.layout` says of ``base_model``.

    Raises:
        InputError: Settings that do not go with it, or no query weights for one that has none.
    """
    name, siamese = settings.base_model, settings.queries == "model"
    if kind == "sparse-encoder" and not siamese and is_siamese(name, HubOptions()):
        kind = "other"
    if kind == "sparse-encoder" or (kind == "mlm-with-idf" and settings.idf is None and not siamese):
        if settings.idf is not None or settings.warm_start is not None:
            raise InputError(f"{name} is a trained encoder: leave model.idf and model.warm_start out")
        if settings.punctuation:
            raise InputError(f"{name} is a trained encoder: leave model.punctuation out")
        if kind == "sparse-encoder" and (settings.activation, settings.pooling) != (None, None):
            raise InputError(f"{name} is a trained encoder: leave model.activation and model.pooling out")
        return True
    if settings.idf is None and settings.queries in ("table", "trained_table"):
        raise InputError(f"{name} has no query weights: give model.idf (st-l0 idf makes one) or 'binary'")
    return False


def check_scores(recipe: Recipe, scored: bool | None, place: str = "") -> None:
    """Refuse teacher scores that are needed and nowhere, or in two places.

    Args:
        recipe: The recipe.
        scored: Whether the data hold scores; ``None`` where that is not known yet.
        place: What the message begins with, such as the row that was looked at.

    Raises:
        InputError: There are none, or two kinds.
    """
    if recipe.teachers is not None and scored:
        raise InputError(f"{place}the data hold teacher scores: leave teachers out, or the scores")
    if recipe.teachers is None and recipe.loss.distils and scored is False:
        losses = ", ".join(recipe.loss.ranking)
        raise InputError(
            f"{place}loss.ranking ({losses}) needs teacher scores: "
            "the data hold none and no teachers are given"
        )


def check_teachers(settings: Teachers) -> None:
    """Refuse teachers of unknown kinds, and those that cannot do what is asked of them.

    Raises:
        InputError: There is one: it cannot find queries, or takes no prompts.
    """
    for spec, prompts in zip(settings.specs, settings.prompts, strict=True):
        kind, _ = split_spec(spec)
        check_prompts(spec, prompts)
        if settings.extra_queries and kind in ("cross-encoder", "seq2seq"):
            raise InputError(
                f"teacher {spec} reads query and document together: leave teachers.extra_queries out"
            )


RECIPE = FileKind("a recipe that a training left", lambda path: path.read_text("utf-8").startswith(WRITTEN))


def check_output(recipe: Recipe) -> None:
    """Refuse an output whose model or recipe no training has written: a training would replace them.

    Raises:
        InputError: It holds something else under their names, or what the training starts from, or nothing
            can be written there.
    """
    output = local_path(recipe.output)
    check_folder(output / "model", "trained model", inputs=[recipe.model.base_model])
    check_file(output / "recipe.yaml", RECIPE)


def check_batch(recipe: Recipe, documents_per_query: int, queries: int) -> None:
    """Refuse batches of one query with one document: nothing is there to rank it against.

    Args:
        recipe: The recipe.
        documents_per_query: What the data hold.
        queries: Queries that the loss sees together, on all devices.

    Raises:
        InputError: Every batch would be such.
    """
    if documents_per_query == queries == 1 and not recipe.ignore_health:
        raise InputError(
            "training.per_device_train_batch_size is 1, or there is one row, and the data hold one document "
            "a query, so that no loss has anything to rank (accumulation does not change that): raise it, or "
            "give negatives (ignore_health: true goes on)"
        )
