"""What each process of `test_losses_distributed` computes: its part of a batch, or all of it."""

from itertools import accumulate

import numpy as np
import torch
import torch.distributed as dist
from given import Given, column
from independent import random_batch
from torch.nn.parallel import DistributedDataParallel

from st_l0 import SparseEncoder
from st_l0.losses import (
    DFFlopsLoss,
    DocumentFrequencyWeights,
    ExtraQueries,
    FlopsLoss,
    IDFFlopsLoss,
    InfoNCELoss,
    KLDivergenceLoss,
    L0ActivationFlopsLoss,
    L0MaskFlopsLoss,
    L1Loss,
    MarginMSELoss,
    SparseRetrievalLoss,
    WeightedRankingLoss,
)
from st_l0.utils.distributed import all_gather, all_gather_objects, all_reduce_sum, rank, world_size
from st_l0.utils.sparse_rows import SparseRows

STEPS = 20
QUERIES = 8
SIZE = 7  # tokens of the plain vectors
# Queries of each rank.
EVEN = {1: (8,), 2: (4, 4), 4: (2, 2, 2, 2)}
UNEVEN = {1: (8,), 2: (3, 5), 4: (1, 4, 2, 1)}
IDLE = {1: (8,), 2: (0, 8), 4: (3, 0, 5, 0)}
CUTS = {"even": EVEN, "uneven": UNEVEN, "idle": IDLE}
WORDS = ["snow", "bird", "fish", "ship", "bread", "milk", "gold", "paper", "song", "river", "tree", "moon"]


def part(rows, cuts):
    """The rows of this process."""
    ends = list(accumulate(cuts[world_size()]))
    return rows[ends[rank()] - cuts[world_size()][rank()] : ends[rank()]]


def primitives():
    """Sums and gathers; every process weighs what it gets by its own power of ten."""
    weight = 10 ** rank()
    found = {"world_size": world_size(), "rank": rank()}
    for name, cuts in CUTS.items():
        rows = part(torch.arange(1.0, 17, dtype=torch.float64).view(8, 2), cuts).clone().requires_grad_()
        gathered = all_gather(rows)
        (gathered * weight * torch.arange(1.0, 9)[:, None]).sum().backward()
        found[name] = gathered.detach(), rows.grad
    number = torch.tensor([3.0 + rank(), 1.0], requires_grad=True)
    total = all_reduce_sum(number)
    (total * torch.tensor([5.0, 7.0]) * weight).sum().backward()
    found["sum"] = total.detach(), number.grad
    found["whole"] = all_gather(torch.tensor([rank(), 2**62 + rank()])), all_reduce_sum(torch.tensor(2**40))
    found["objects"] = all_gather_objects([f"text {rank()}"] * rank())
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        for name, collective in (("gather", all_gather), ("reduce", all_reduce_sum)):
            number = torch.tensor([1.5], dtype=dtype, requires_grad=True)
            result = collective(number)
            result.sum().backward()
            found[name, dtype] = result.detach(), number.grad
    return found


def sparse(vectors):
    """The rows of a dense matrix, with the gradient."""
    active = vectors != 0
    offsets = torch.nn.functional.pad(active.sum(1).cumsum(0), (1, 0))
    return SparseRows(active.nonzero()[:, 1].int(), vectors[active], offsets, vectors.shape[1])


def regularizers():
    factors = torch.linspace(0, 3, SIZE, dtype=torch.float64)
    options = {
        "plain": {},
        "threshold": {"threshold": 3},
        "top-k": {"top_k": 2},
        **{f"logs-{logs}": {"extra_logs": logs} for logs in (1, 2, 3)},
        "weights": {"token_weights": factors},
        "frequency": {"token_weights": DocumentFrequencyWeights(SIZE, alpha=0.5, beta=2)},
        "all": {"threshold": 2, "top_k": 1, "extra_logs": 1, "token_weights": factors},
    }
    for kind in (FlopsLoss, L1Loss):
        for positions in (1, 2):
            for name, chosen in options.items():
                yield f"{kind.__name__} {name} {positions}", kind(positions=positions, **chosen)
    for named in (
        L0MaskFlopsLoss(3),
        L0ActivationFlopsLoss(),
        IDFFlopsLoss(factors),
        DFFlopsLoss(SIZE, alpha=0.4, beta=2),
    ):
        yield type(named).__name__, named


def rankings():
    """Name, loss, and which teacher scores it gets."""
    for in_batch in (True, False):
        yield f"infonce {in_batch}", InfoNCELoss(0.7, in_batch_negatives=in_batch), None
        yield f"kl {in_batch}", KLDivergenceLoss(0.7, in_batch_negatives=in_batch), "own"
        yield f"margin {in_batch}", MarginMSELoss(in_batch_negatives=in_batch), "own"
    yield "kl complete", KLDivergenceLoss(0.7, in_batch_negatives=True), "complete"
    yield "margin complete", MarginMSELoss(in_batch_negatives=True), "complete"
    yield "kl extra", KLDivergenceLoss(0.7, in_batch_negatives=True), "extra_queries"
    both = {"kl": (KLDivergenceLoss(in_batch_negatives=True), 0.5), "nce": (InfoNCELoss(3.0), 2.0)}
    yield "weighted", WeightedRankingLoss(both), "own"


def plain(dtype, cuts):
    """Value and gradient of every loss on given vectors, with duplicates within and across the ranks."""
    rows, keys, own, complete = random_batch(21, queries=QUERIES, size=SIZE, texts=12)
    teachers = {
        None: None,
        "own": part(torch.tensor(own, dtype=dtype), cuts),
        "complete": part(torch.tensor(complete, dtype=dtype), cuts),
    }
    teachers["extra_queries"] = teachers["complete"]
    keys = [part(torch.tensor(texts), cuts) for texts in keys]
    mine = [part(torch.tensor(vectors, dtype=dtype), cuts) for vectors in rows]
    found = {}

    def run(name, compute):
        columns = [vectors.clone().requires_grad_() for vectors in mine]
        value = compute(columns)
        value.backward()
        gradient = [torch.zeros_like(c) if c.grad is None else c.grad for c in columns]
        found[name] = value.item(), torch.stack(gradient)

    for name, loss in regularizers():
        run(name, lambda columns, loss=loss: loss.compute_loss_from_embeddings(torch.cat(columns[1:])))
    for name, loss, teacher in rankings():
        for texts in (None, keys):

            def ranking(columns, loss=loss, teacher=teacher, texts=texts):
                extra = {}
                if teacher == "extra_queries":  # the positives once more, as queries without documents
                    flipped = teachers["complete"].flip(1)
                    extra["extra_queries"] = ExtraQueries(sparse(columns[1]), flipped)
                value = loss.compute_loss_from_embeddings(columns, teachers[teacher], keys=texts, **extra)
                return sum(value.values()) if isinstance(value, dict) else value

            run(name if texts is None else f"{name} keys", ranking)
    combined = SparseRetrievalLoss(
        Given(),
        WeightedRankingLoss(
            {
                "kl": (KLDivergenceLoss(in_batch_negatives=True), 1.0),
                "margin": (MarginMSELoss(in_batch_negatives=True), 0.1),
            }
        ),
        FlopsLoss(threshold=2, positions=2),
        0.3,
        query_regularizer=L1Loss(top_k=1),
        query_regularizer_weight=0.2,
    )

    def total(columns):
        features = [column(vectors, texts.tolist()) for vectors, texts in zip(columns, keys, strict=True)]
        return sum(combined(features, teachers["own"]).values())

    run("combined", total)
    return found


def frequencies(cuts):
    """Factors of eight batches of different density, and the counts since the last estimate."""
    generator = torch.Generator().manual_seed(3)
    weights = DocumentFrequencyWeights(SIZE, alpha=0.4, beta=3, refresh_steps=3)
    found = []
    for batch in range(8):
        active = torch.rand(8, SIZE, generator=generator) < 0.1 + 0.11 * batch
        found.append(weights.observe(part(active, cuts)).clone())
    state = weights.state_dict()
    return torch.stack(found), state["counts"], state["documents"]


def statistics(cuts):
    """Of two log_statistics batches, with one between them that is not."""
    loss = SparseRetrievalLoss(Given(), InfoNCELoss(), FlopsLoss(), 0.5)
    for batch, log_statistics in enumerate((True, False, True)):
        loss.log_statistics = log_statistics
        rows, keys, _, _ = random_batch(batch, queries=QUERIES, size=SIZE)
        loss(
            [
                column(part(torch.tensor(vectors), cuts), part(texts, cuts))
                for vectors, texts in zip(rows, keys, strict=True)
            ]
        )
    return loss.pop_statistics()


def texts_of_batch(seed):
    """Eight queries with a positive and a negative each; two queries share a positive."""
    generator = np.random.default_rng(seed)
    rows = [" ".join(generator.choice(WORDS, 1 + row % 4)) for row in range(24)]
    queries, positives, negatives = rows[:8], rows[8:16], rows[16:]
    positives[7] = positives[0]
    return queries, positives, negatives


def configurations(model, name):
    """A loss around ``model``, which teacher scores it gets, and how the batch is divided."""
    if name == "contrastive, mask":
        return (
            SparseRetrievalLoss(model, InfoNCELoss(3.0), FlopsLoss(threshold=20), 0.02, ramp_steps=5),
            None,
            EVEN,
        )
    if name == "distilled, document frequency":
        ranking = WeightedRankingLoss(
            {
                "kl": (KLDivergenceLoss(2.0, in_batch_negatives=True), 1.0),
                "margin": (MarginMSELoss(in_batch_negatives=True), 0.02),
            }
        )
        frequency = DocumentFrequencyWeights(127, alpha=0.3, beta=3, refresh_steps=3)
        return SparseRetrievalLoss(model, ranking, FlopsLoss(token_weights=frequency), 0.02), "own", UNEVEN
    loss = SparseRetrievalLoss(
        model,
        KLDivergenceLoss(3.0, in_batch_negatives=True),
        FlopsLoss(extra_logs=1, positions=2),
        0.02,
        query_regularizer=L1Loss(),
        query_regularizer_weight=0.01,
        ramp_steps=5,
    )
    return loss, "complete", UNEVEN


CONFIGURATIONS = ("contrastive, mask", "distilled, document frequency", "siamese, decoupled")


def trained_encoder(name, folder, dtype, steps):
    """Loss parts, gradients and statistics of a first batch, and the weights after some more."""
    idf = None if name.startswith("siamese") else "binary"
    model = SparseEncoder.from_mlm(folder, idf=idf, device="cpu").eval().to(dtype)  # dropout is random
    wrapped = model
    if world_size() > 1:
        wrapped = DistributedDataParallel(model, find_unused_parameters=False, broadcast_buffers=False)
    loss, teacher, cuts = configurations(wrapped, name)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=0.02, momentum=0.9)
    found = {"start": flat(trained.values())}
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        labels = {
            None: None,
            "own": torch.randn(8, 2, generator=generator) * 3,
            "complete": torch.randn(8, 16, generator=generator) * 3,
        }[teacher]
        features = [
            model.preprocess(part(texts, cuts), task="document" if index else "query")
            for index, texts in enumerate(texts_of_batch(step))
        ]
        loss.set_step(step)
        parts = loss(features, None if labels is None else part(labels, cuts))
        optimizer.zero_grad()
        sum(parts.values()).backward()
        if step == 0:
            found["parts"] = {name: value.item() for name, value in parts.items()}
            found["gradient"] = flat(p.grad for p in trained.values())
            found["statistics"] = loss.pop_statistics()
        optimizer.step()
    return {**found, "weights": flat(trained.values())}


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).clone()


def vectors_alone():
    """All that needs no encoder."""
    return {
        "primitives": primitives(),
        "plain": {
            **{(torch.float64, name): plain(torch.float64, cuts) for name, cuts in CUTS.items()},
            (torch.float32, "uneven"): plain(torch.float32, UNEVEN),
        },
        "frequencies": {name: frequencies(cuts) for name, cuts in CUTS.items()},
        "statistics": {name: statistics(cuts) for name, cuts in CUTS.items()},
    }


def everything(folder):
    found = vectors_alone()
    for name in CONFIGURATIONS:
        found[name] = {
            torch.float32: trained_encoder(name, folder, torch.float32, STEPS),
            torch.float64: trained_encoder(name, folder, torch.float64, 3),
        }
    return found


def process(rank, folder, mlm_folder):
    """One of four processes, of which the first two are a group of their own before."""
    torch.set_num_threads(1)
    for processes in (2, 4):
        if rank < processes:
            meeting = f"file://{folder}/meeting-{processes}"
            dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
            torch.save(everything(mlm_folder), f"{folder}/{processes}-{rank}.pt")
            dist.destroy_process_group()
