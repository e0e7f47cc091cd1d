"""The section ``data`` of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from st_l0.data.columns import WORDS, column_problem
from st_l0.training.recipe_paths import local_names
from st_l0.training.settings import Section, SettingError

_PATH = {"then": local_names}


@dataclass(frozen=True)
class Source(Section):
    """Training data with a weight.

    Attributes:
        path: Path or Hub name.
        weight: Its share of the examples of a training, as a ratio to the weights of the other sources.
    """

    path: str = field(metadata=_PATH)
    weight: float = field(metadata={"more_than": 0})


@dataclass(frozen=True)
class Data(Section):
    """What to train on.

    Attributes:
        train: Paths or Hub names of the training data, at least one; a single string stands for a list of
            one. All rows are seen equally often. Or each with a weight, ``{path: …, weight: …}``: of three
            sources with the weights 2, 1 and 1 the first gives half of the examples of an epoch, which has as
            many as all sources together. A source that has fewer repeats; of one that has more, the next
            epoch sees others.
        corpus: Where rows of ids find the texts of documents: a BEIR folder, a file or a Hub name.
        queries: The same for the texts of queries.
        repair_latin1: Whether texts of ``corpus`` and ``queries`` that are UTF-8 read as latin1 are repaired
            (some of MS MARCO on the Hub are).
        documents_per_query: Documents of a training example; rows with more are cut into several. ``None``:
            every row has the same number, and is one example.
        score_scale: Factor of the teacher scores that the rows hold.
        limit: Training examples to use at most; ``None`` uses all. Not where sources have weights.
        columns: Our words to the keys that hold them, such as ``{positive: passage_text}``, for keys of other
            names (see `st_l0.data.read_rows`); under ``ignore`` those that hold nothing of a row;
            ``corpus_id``, ``corpus_text``, ``queries_id`` … are fields of ``corpus`` and ``queries``.
    """

    train: tuple[str | Source, ...] = field(metadata=_PATH)
    corpus: str | None = field(default=None, metadata=_PATH)
    queries: str | None = field(default=None, metadata=_PATH)
    repair_latin1: bool = False
    documents_per_query: int | None = field(default=None, metadata={"at_least": 1})
    score_scale: float = field(default=1.0, metadata={"more_than": 0})
    limit: int | None = field(default=None, metadata={"at_least": 1})
    columns: dict[str, Any] = field(
        default_factory=dict, metadata={"entries": lambda: dict.fromkeys(WORDS, tuple[str, ...])}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if problem := column_problem(self.columns, lookups=self.corpus is not None):
            raise SettingError(problem, ("columns",))
        if (self.corpus is None) != (self.queries is None):
            missing = "corpus" if self.corpus is None else "queries"
            raise SettingError("is missing: rows of ids need both corpus and queries", (missing,))
        if self.repair_latin1 and self.corpus is None:
            raise SettingError("is of no use: it repairs the texts of corpus and queries", ("repair_latin1",))
        weighted = sum(isinstance(source, Source) for source in self.train)
        if 0 < weighted < len(self.train):
            raise SettingError("must give all sources a weight, or none", ("train",))
        if weighted and self.limit is not None:
            problem = "must be left out where sources have weights: it would cut off the last of them"
            raise SettingError(problem, ("limit",))

    @property
    def paths(self) -> tuple[str, ...]:
        """``train`` without weights."""
        return tuple(source.path if isinstance(source, Source) else source for source in self.train)

    @property
    def weights(self) -> tuple[float, ...] | None:
        """The weight of each source; ``None`` where they have none."""
        found = tuple(source.weight for source in self.train if isinstance(source, Source))
        return found or None
