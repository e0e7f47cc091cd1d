"""The losses a second time, from their formulas alone: plain Python numbers, one pair of texts at a time.

Vectors are lists of floats. A batch is a list of columns: queries, then the documents of each position.
"""

import math
import random


def regularizer(rows, power, *, threshold=None, top_k=None, extra_logs=0, factors=None, positions=1):
    """Sum over positions and tokens of (factor * mean weight) ** power; power 2 is FLOPS, 1 is l1."""
    size = len(rows) // positions
    total = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        for token in range(len(rows[0])):
            weights = [_penalised(row, threshold, top_k)[token] for row in part]
            for _ in range(extra_logs):
                weights = [math.log(1 + weight) for weight in weights]
            mean = math.fsum(weights) / size
            total.append((mean if factors is None else factors[token] * mean) ** power)
    return math.fsum(total)


def _penalised(row, threshold, top_k):
    """The sizes of the weights that count; 0 for the free ones."""
    sizes = [abs(weight) for weight in row]
    if threshold is not None and sum(weight != 0 for weight in row) <= threshold:
        return [0.0] * len(row)
    if top_k is not None:
        order = sorted(range(len(row)), key=lambda token: -sizes[token])
        for token in order[:top_k]:
            sizes[token] = 0.0
    return sizes


def document_frequency_factor(share, alpha, beta):
    """1 / (1 + (x ** log_alpha(2) - 1) ** beta), whose limit at x = 0 is 0."""
    return 0.0 if share == 0 else 1 / (1 + (share ** math.log(2, alpha) - 1) ** beta)


def document_frequency_factors(batches, alpha, beta, refresh):
    """Factors in force in each batch: from the first one, then after every ``refresh`` batches anew."""
    found, seen, factors = [], [], []
    for number, rows in enumerate(batches):
        seen += rows
        if number % refresh == 0:
            counts = [sum(row[token] != 0 for row in seen) for token in range(len(rows[0]))]
            factors = [document_frequency_factor(count / len(seen), alpha, beta) for count in counts]
            seen = []
        found.append(factors)
    return found


def dot(one, other):
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


class Batch:
    """All documents of a batch: those of the first position first."""

    def __init__(self, columns, keys=None):
        self.queries, self.documents_per_query = columns[0], len(columns) - 1
        self.documents = [row for column in columns[1:] for row in column]
        self.keys = keys
        self.texts = keys and [key for column in keys[1:] for key in column]

    def own(self, query):
        """Where the documents of a query stand."""
        return [query + position * len(self.queries) for position in range(self.documents_per_query)]

    def score(self, query, document):
        return dot(self.queries[query], self.documents[document])

    def rivals(self, query, own):
        """The documents that are neither among ``own`` nor known to be right."""
        right = set()
        if self.keys is not None:
            twins = [i for i, key in enumerate(self.keys[0]) if key == self.keys[0][query]]
            right = {self.keys[1][twin] for twin in twins} | {self.texts[place] for place in own}
        others = [place for place in range(len(self.documents)) if place not in own]
        return [place for place in others if self.texts is None or self.texts[place] not in right]


def log_softmax(numbers):
    top = max(numbers)
    total = math.log(math.fsum(math.exp(number - top) for number in numbers))
    return [number - top - total for number in numbers]


def infonce(columns, keys=None, temperature=1.0, in_batch_negatives=True):
    batch, losses = Batch(columns, keys), []
    for query in range(len(batch.queries)):
        own = batch.own(query)
        places = own
        if in_batch_negatives:
            places = [own[0], *batch.rivals(query, own[:1])]
        losses.append(-log_softmax([batch.score(query, place) / temperature for place in places])[0])
    return math.fsum(losses) / len(losses)


def kl(columns, teacher, keys=None, temperature=1.0, in_batch_negatives=False):
    batch, losses = Batch(columns, keys), []
    for query, given in enumerate(teacher):
        places = own = batch.own(query)
        if in_batch_negatives and len(given) == len(batch.documents):
            places = range(len(batch.documents))
        elif in_batch_negatives:
            places = own + batch.rivals(query, own)
        student = log_softmax([batch.score(query, place) / temperature for place in places])
        target = log_softmax([score / temperature for score in given])
        # Documents without a teacher score come last and have no probability.
        losses += [math.exp(p) * (p - q) for p, q in zip(target, student, strict=False)]
    return math.fsum(losses) / len(teacher)


def margin_mse(columns, teacher, keys=None, in_batch_negatives=False):
    batch, losses, counted = Batch(columns, keys), [], 0
    for query, given in enumerate(teacher):
        own = batch.own(query)
        scored = range(len(batch.documents)) if len(given) == len(batch.documents) else own
        teacher_of = dict(zip(scored, given, strict=True))
        score = batch.score(query, own[0])
        for place in teacher_of.keys() - {own[0]}:
            margin = teacher_of[own[0]] - teacher_of[place]
            losses.append((score - batch.score(query, place) - margin) ** 2)
        if in_batch_negatives and scored is own:
            widest = given[0] - min(given)
            for place in batch.rivals(query, own):
                losses.append(min(0.0, score - batch.score(query, place) - widest) ** 2)
        counted += (len(batch.documents) if in_batch_negatives else len(own)) - 1
    return math.fsum(losses) / max(1, counted)


def random_rows(draw, rows, size, density=0.5, low=0.1, high=2.0):
    """Sparse non-negative vectors."""
    return [
        [draw.uniform(low, high) if draw.random() < density else 0.0 for _ in range(size)]
        for _ in range(rows)
    ]


def random_batch(seed, *, queries=5, positions=2, size=7, texts=6):
    """Columns, keys with many duplicates, teacher scores of the own and of all documents.

    Equal keys need not mean equal vectors here: what is masked must be told by the keys.
    """
    draw = random.Random(seed)
    columns = [random_rows(draw, queries, size) for _ in range(1 + positions)]
    keys = [[draw.randrange(texts) for _ in range(queries)] for _ in range(1 + positions)]
    complete = [[draw.gauss(0, 2) for _ in range(queries * positions)] for _ in range(queries)]
    own = [[draw.gauss(0, 2) for _ in range(positions)] for _ in range(queries)]
    return columns, keys, own, complete
