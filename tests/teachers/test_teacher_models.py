"""Each kind of teacher against raw transformers."""

import json
import math
import shutil

import numpy as np
import pytest
import sentence_transformers as st
import torch
import transformers as tf
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.sparse_encoder.modules import SpladePooling

from st_l0 import SparseEncoder
from st_l0.errors import InputError
from st_l0.teachers import load_teacher
from tiny_models import DOCUMENTS, LETTERS, QUERIES, VOCABULARY, WORDS, make_tokenizer, save_model
from tiny_models import reference_documents as splade
from tiny_models import reference_queries as lookup

PAIRS = [(i % len(QUERIES), (3 * i + 1) % len(DOCUMENTS)) for i in range(20)]
LONG = " ".join(WORDS * 12)


def message(function, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Checkpoints


def make_dense(folder, similarity, base):
    pooling = Pooling(32, pooling_mode="mean")
    model = st.SentenceTransformer(
        modules=[Transformer(base), pooling],
        similarity_fn_name=similarity,
        prompts={"query": "the song ", "document": "red "},
        device="cpu",
    )
    return save_model(model, folder)


def make_siamese(folder, base, similarity="dot"):
    modules = [Transformer(base, transformer_task="fill-mask", max_seq_length=64), SpladePooling()]
    return save_model(st.SparseEncoder(modules=modules, device="cpu", similarity_fn_name=similarity), folder)


def make_classifier(folder, labels=1):
    torch.manual_seed(labels)
    config = tf.BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=130,
        initializer_range=0.3,
        num_labels=labels,
    )
    tf.BertForSequenceClassification(config).save_pretrained(folder)
    tf.BertTokenizerFast(vocab=make_tokenizer().get_vocab(), model_max_length=128).save_pretrained(folder)
    return str(folder)


def make_t5(folder, answers=("▁true", "▁false"), start=0):
    torch.manual_seed(3)
    pieces = ["<pad>", "</s>", "<unk>", "▁", *answers, "▁Query", "▁Document", "▁Relevant", ":"]
    pieces += dict.fromkeys([f"▁{word}" for word in WORDS] + list(LETTERS))
    scores = [(piece, -1.0 - 0.01 * i) for i, piece in enumerate(pieces)]
    start = {} if start is None else {"decoder_start_token_id": start}
    config = tf.T5Config(
        vocab_size=len(pieces), d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, **start
    )
    model = tf.T5ForConditionalGeneration(config)
    with torch.no_grad():  # so that the answer depends on all of the prompt
        for layer in [*model.encoder.block, *model.decoder.block]:
            for parameter in layer.parameters():
                parameter.mul_(2)
    model.save_pretrained(folder)
    tf.T5Tokenizer(vocab=scores, extra_ids=0).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, mlm_folder, idf_weights):
    """Function: name of a checkpoint to its folder."""
    encoder = {"idf": idf_weights, "device": "cpu"}
    makers = {
        "cosine": lambda folder: make_dense(folder, "cosine", mlm_folder),
        "dot": lambda folder: make_dense(folder, "dot", mlm_folder),
        "siamese": lambda folder: make_siamese(folder, mlm_folder),
        "siamese-cosine": lambda folder: make_siamese(folder, mlm_folder, "cosine"),
        "siamese-manhattan": lambda folder: make_siamese(folder, mlm_folder, "manhattan"),
        "inference-free": lambda folder: save_model(SparseEncoder.from_mlm(mlm_folder, **encoder), folder),
        "classifier": make_classifier,
        "three-labels": lambda folder: make_classifier(folder, 3),
        "t5": make_t5,
        "t5-yes": lambda folder: make_t5(folder, ("▁yes", "▁no")),
        "t5-no-start": lambda folder: make_t5(folder, start=None),
        "mlm": lambda folder: mlm_folder,
    }
    made = {}

    def folder_of(name):
        if name not in made:
            made[name] = makers[name](tmp_path_factory.mktemp(name))
        return made[name]

    return folder_of


# What the kinds compute, one text or pair at a time


def mean_pooled(folder, text):
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    model = tf.AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    with torch.inference_mode():
        return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].double().mean(0).numpy()


def expected_dense(folder, queries, documents, cosine):
    left = np.stack([mean_pooled(folder, f"the song {text}") for text in queries])
    right = np.stack([mean_pooled(folder, f"red {text}") for text in documents])
    if cosine:
        left, right = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (left, right))
    return left @ right.T


def stock_splade(folder, texts):
    """As `splade`, but a siamese model keeps its special tokens."""
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    model = tf.AutoModelForMaskedLM.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = [model(**tokenizer(text, return_tensors="pt")).logits[0].double() for text in texts]
    return np.stack([torch.log1p(rows.clamp(min=0)).max(0).values.numpy() for rows in logits])


def expected_cross_encoder(folder, queries, documents):
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    model = tf.AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def score(query, document):
        features = tokenizer([query], [document], truncation=True, return_tensors="pt")
        with torch.inference_mode():
            return model(**features).logits[0, 0].item()

    return np.array([[score(query, document) for document in documents] for query in queries])


def expected_t5(folder, queries, documents):
    """The prompt as one text; the tokens of too long a document leave before its end."""
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    model = tf.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    false, true = tokenizer.convert_tokens_to_ids(["▁false", "▁true"])

    def score(query, document):
        ids = tokenizer(f"Query: {query} Document: {document} Relevant:")["input_ids"]
        tail = ids[-3:]  # ▁Relevant, : and </s>
        assert tokenizer.convert_ids_to_tokens(tail) == ["▁Relevant", ":", "</s>"]
        ids = ids if len(ids) <= 512 else ids[: 512 - 3] + tail
        with torch.inference_mode():
            output = model(input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([[0]]))
        of_true, of_false = output.logits[0, 0, [true, false]].double().exp().tolist()
        return math.log(of_true / (of_true + of_false))

    return np.array([[score(query, document) for document in documents] for query in queries])


def expected(name, folder, base, table):
    documents = DOCUMENTS if name != "t5" else [*DOCUMENTS, LONG]
    if name in ("cosine", "dot"):
        scores = expected_dense(base, QUERIES, documents, name == "cosine")
    elif name.startswith("siamese"):
        left, right = stock_splade(base, QUERIES), stock_splade(base, documents)
        if name == "siamese-cosine":
            left, right = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (left, right))
        scores = left @ right.T
    elif name == "inference-free":
        scores = lookup(base, QUERIES, table) @ splade(base, documents).T
    elif name == "classifier":
        scores = expected_cross_encoder(folder, QUERIES, documents)
    else:
        scores = expected_t5(folder, QUERIES, documents)
    return documents, scores


KINDS = [
    ("dense", "cosine"),
    ("dense", "dot"),
    ("sparse", "siamese"),
    ("sparse", "siamese-cosine"),
    ("sparse", "inference-free"),
    ("cross-encoder", "classifier"),
    ("seq2seq", "t5"),
]


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_scores_are_those_of_the_formula(checkpoints, mlm_folder, idf_weights, kind, name):
    folder = checkpoints(name)
    documents, scores = expected(name, folder, mlm_folder, idf_weights)
    assert scores.std() > 0.01
    teacher = load_teacher(f"{kind}:{folder}", device="cpu", batch_size=3)
    assert teacher.name == f"{kind}:{folder}"
    found = teacher.score_all(QUERIES, documents)
    assert found.dtype == torch.float32 and found.shape == scores.shape
    np.testing.assert_allclose(found.numpy(), scores, rtol=2e-5, atol=2e-5)
    pairs = teacher.score_pairs([QUERIES[q] for q, _ in PAIRS], [documents[d] for _, d in PAIRS])
    assert pairs.dtype == torch.float32 and not pairs.is_inference() and not found.is_inference()
    np.testing.assert_allclose(pairs.numpy(), [scores[pair] for pair in PAIRS], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_scores_do_not_depend_on_the_batch_and_equal_texts_score_the_same(checkpoints, kind, name):
    one, many = (load_teacher(f"{kind}:{checkpoints(name)}", device="cpu", batch_size=n) for n in (1, 50))
    torch.testing.assert_close(
        one.score_all(QUERIES, DOCUMENTS), many.score_all(QUERIES, DOCUMENTS), rtol=1e-5, atol=1e-5
    )
    # The same document among others of other lengths, in another batch.
    scores = load_teacher(f"{kind}:{checkpoints(name)}", device="cpu", batch_size=2)
    texts = [DOCUMENTS[0], *DOCUMENTS, DOCUMENTS[0]]
    rows = [scores.score_all(QUERIES, texts), scores.score_pairs([QUERIES[0]] * len(texts), texts)[None]]
    for row in rows:
        assert torch.equal(row[:, 0], row[:, 1]) and torch.equal(row[:, 0], row[:, -1])
    assert scores.score_all([], DOCUMENTS).shape == (0, len(DOCUMENTS))
    assert scores.score_all(QUERIES, []).shape == (len(QUERIES), 0)
    assert scores.score_pairs([], []).shape == (0,)
    with pytest.raises(ValueError, match="no pairs"):
        scores.score_pairs(QUERIES, QUERIES[:2])


def test_an_embedding_teacher_reads_each_text_once(checkpoints, monkeypatch):
    teacher = load_teacher(f"dense:{checkpoints('dot')}", device="cpu")
    read = []
    for side in ("encode_query", "encode_document"):
        encode = getattr(teacher.model, side)
        monkeypatch.setattr(
            teacher.model, side, lambda texts, e=encode, **k: (read.extend(texts), e(texts, **k))[1]
        )
    teacher.score_pairs(["a", "a", "b"], ["c", "d", "c"])
    assert sorted(read) == ["a", "b", "c", "d"]


def test_pairs_are_compared_in_slices(checkpoints, monkeypatch):
    for kind, name in (("dense", "cosine"), ("sparse", "siamese")):
        teacher = load_teacher(f"{kind}:{checkpoints(name)}", device="cpu")
        queries, documents = [QUERIES[q] for q, _ in PAIRS], [DOCUMENTS[d] for _, d in PAIRS]
        whole = teacher.score_pairs(queries, documents)
        monkeypatch.setattr("st_l0.teachers.model_teachers._SLICE", 3)
        torch.testing.assert_close(teacher.score_pairs(queries, documents), whole)
        monkeypatch.undo()


def test_the_document_is_cut_and_so_is_a_query_that_would_leave_no_room(checkpoints):
    folder = checkpoints("t5")
    teacher = load_teacher(f"seq2seq:{folder}", device="cpu")
    documents = [LONG, LONG + " dog", "dog " + LONG]
    scores = teacher.score_all(["the cat"], documents)[0]
    assert scores[0] == scores[1] and scores[0] != scores[2]
    np.testing.assert_allclose(scores.numpy(), expected_t5(folder, ["the cat"], documents)[0], rtol=2e-5)
    # 2 tokens for "Query:", so 254 for the query.
    short, long = " ".join(["cat"] * 254), " ".join(["cat"] * 900)
    scores = teacher.score_all([short, long], ["dog", "red fish", LONG])
    np.testing.assert_allclose(scores[0].numpy(), scores[1].numpy(), rtol=1e-5)
    assert len(set(scores[0].tolist())) == 3


def test_the_older_layout_of_inference_free_models(checkpoints, mlm_folder, idf_weights, tmp_path):
    shutil.copytree(mlm_folder, tmp_path / "doc-v1")
    table = dict(zip(VOCABULARY, idf_weights.tolist(), strict=True))
    (tmp_path / "doc-v1" / "idf.json").write_text(json.dumps(table))
    teacher = load_teacher(f"sparse:{tmp_path / 'doc-v1'}", device="cpu")
    same = load_teacher(f"sparse:{checkpoints('inference-free')}", device="cpu")
    torch.testing.assert_close(teacher.score_all(QUERIES, DOCUMENTS), same.score_all(QUERIES, DOCUMENTS))


def test_only_sparse_teachers_have_a_vocabulary(checkpoints):
    for kind, name in KINDS:
        vocabulary = load_teacher(f"{kind}:{checkpoints(name)}", device="cpu").vocabulary
        assert vocabulary == ({token: i for i, token in enumerate(VOCABULARY)} if kind == "sparse" else None)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("gpt:model", "give kind:model, where kind is one of dense, sparse, cross-encoder, seq2seq"),
        ("dense", "give kind:model"),
        ("dense:", "give kind:model"),
        ("dense:./absent", "no model there"),
        ("cross-encoder:nobody/nothing", "no model there"),
        ("seq2seq:nobody/nothing", "no model there"),
        ("dense:{siamese}", "is a SparseEncoder; give sparse:"),
        ("sparse:{cosine}", "is a SentenceTransformer; give dense:"),
        ("cross-encoder:{cosine}", "is a SentenceTransformer; give dense:"),
        ("seq2seq:{inference-free}", "is a SparseEncoder; give sparse:"),
        ("cross-encoder:{mlm}", "is a BertForMaskedLM, which is not ForSequenceClassification"),
        ("sparse:{classifier}", "is a BertForSequenceClassification, which is not ForMaskedLM"),
        ("seq2seq:{classifier}", "which is not ForConditionalGeneration"),
        ("cross-encoder:{three-labels}", "has 3 labels"),
        ("sparse:{siamese-manhattan}", "compares by manhattan"),
        ("seq2seq:{t5-yes}", "no single tokens for true and false"),
        ("seq2seq:{t5-no-start}", "no decoder_start_token_id"),
    ],
)
def test_what_is_no_such_teacher_is_refused(checkpoints, spec, expected):
    name = spec.partition("{")[2].rstrip("}")
    spec = spec if not name else f"{spec.partition('{')[0]}{checkpoints(name)}"
    text = message(load_teacher, spec, device="cpu")
    assert spec in text and expected in text


def test_a_damaged_checkpoint_is_refused(checkpoints, tmp_path):
    for kind, name in (
        ("dense", "dot"),
        ("sparse", "siamese"),
        ("cross-encoder", "classifier"),
        ("seq2seq", "t5"),
    ):
        folder = shutil.copytree(checkpoints(name), tmp_path / name)
        for weights in folder.rglob("*.safetensors"):
            weights.write_bytes(weights.read_bytes()[:100])
        text = message(load_teacher, f"{kind}:{folder}", device="cpu")
        assert text.startswith(f"teacher {kind}:{folder}")
        assert "model.safetensors: damaged (" in text


def embedded(folder, prompts=None):
    """What a teacher makes of a text, as query and as document."""
    teacher = load_teacher(f"dense:{folder}", device="cpu", prompts=prompts)
    return [teacher.embed(["a fox"], side) for side in ("query", "document")]


def test_prompts_of_a_model_and_those_that_are_given(tmp_path, mlm_folder):
    """Its own ones by any name; given ones in their place, each side by itself."""

    def save(prompts):
        modules = [Transformer(mlm_folder), Pooling(32, pooling_mode="mean")]
        model = st.SentenceTransformer(modules=modules, device="cpu", prompts=prompts)
        return save_model(model, tmp_path / f"{len(list(tmp_path.iterdir()))}"), model

    bare, model = save({})
    plain, song, red = (
        torch.tensor(model.encode([text])) for text in ("a fox", "the song a fox", "red a fox")
    )
    for found, expected in (
        (embedded(bare), (plain, plain)),
        (embedded(bare, {"query": "the song "}), (song, plain)),
        (embedded(save({"query": "the song ", "document": "red "})[0]), (song, red)),
        # Stock takes the empty "document" that it adds itself.
        (embedded(save({"query": "the song ", "passage": "red "})[0]), (song, red)),
        (embedded(save({"query": "the song ", "passage": "red "})[0], {"document": ""}), (song, plain)),
        (embedded(save({"query": "red ", "document": "red "})[0], {"query": "the song "}), (song, red)),
    ):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


def test_prompts_where_none_are_read(tmp_path):
    assert message(load_teacher, "cross-encoder:x", prompts={"query": "q: "}) == (
        "teacher cross-encoder:x takes no prompts; leave them out"
    )
    assert "its texts were embedded with prompts, or without" in message(
        load_teacher, "vectors:x", prompts={"query": "q: "}
    )
