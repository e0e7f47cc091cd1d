"""The document side as OpenSearch would run it, read again by torch alone."""

import io
import json
import stat
import zipfile

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from typer.testing import CliRunner

from st_l0.cli import app
from st_l0.errors import InputError
from st_l0.indexing.document_archive import write_document_archive
from tiny_models import reference_documents, save_model

TEXTS = ("cat", "The cat sat on the big red mountain.", "zzz [SEP] [MASK] bread", "snow rain " * 200)


def as_the_server(archive, texts):
    """The server's own steps: encode, run with the inputs by name, decode the places of what is not 0."""
    with zipfile.ZipFile(archive) as zipped:
        network = torch.jit.load(io.BytesIO(zipped.read("model.pt")))
        tokenizer = Tokenizer.from_str(zipped.read("tokenizer.json").decode())
    for text in texts:
        encoded = tokenizer.encode(text)
        with torch.inference_mode():
            names = {"input_ids": encoded.ids, "attention_mask": encoded.attention_mask}
            (row,) = network({name: torch.tensor([value]) for name, value in names.items()})["output"]
        found = {tokenizer.decode([place]): float(row[place]) for place in row.nonzero().squeeze(1).tolist()}
        yield {name: weight for name, weight in found.items() if name}


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize(("activation", "logs"), [("relu", 0), ("log1p_relu", 1)])
def test_documents_are_those_of_the_formula(tiny_encoder, mlm_folder, tmp_path, ids, activation, logs):
    model = tiny_encoder(activation=activation)
    model.max_seq_length = 64
    output = tmp_path / "documents.zip"
    write_document_archive(model, output, "model", ids=ids)
    expected = reference_documents(mlm_folder, TEXTS, extra_logs=logs, max_length=64)
    names = list(map(str, range(expected.shape[1])))
    if not ids:
        names = model.tokenizer.convert_ids_to_tokens(range(expected.shape[1]))
    for row, found in zip(expected, as_the_server(output, TEXTS), strict=True):
        assert found.keys() == {names[place] for place in np.flatnonzero(row)}
        np.testing.assert_allclose(
            [found[names[place]] for place in np.flatnonzero(row)], row[row > 0], atol=1e-5
        )
    assert stat.S_IMODE(output.stat().st_mode) & 0o444 == 0o444


def test_what_the_server_cannot_do(tiny_encoder, tmp_path):
    with pytest.raises(InputError, match="prunes its documents"):
        model = tiny_encoder()
        model.max_active_dims = 5
        write_document_archive(model, tmp_path / "a.zip", "model", ids=True)
    with pytest.raises(InputError, match="one log or two"):
        write_document_archive(tiny_encoder(activation=2), tmp_path / "a.zip", "model", ids=True)
    assert not list(tmp_path.iterdir())


def test_the_commands(tiny_encoder, tmp_path):
    folder = save_model(tiny_encoder(), tmp_path / "model")
    for side, files in (
        ([], ["tokenizer.json", "idf.json"]),
        (["--documents"], ["model.pt", "tokenizer.json"]),
    ):
        output = tmp_path / f"{len(side)}.zip"
        arguments = ["opensearch", "archive", folder, "--output", str(output), "--names", "tokens", *side]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        with zipfile.ZipFile(output) as zipped:
            assert zipped.namelist() == files
            assert json.loads(zipped.read("tokenizer.json"))["decoder"] is None
    done = CliRunner().invoke(app, ["opensearch", "archive", folder, "--output", f"{folder}/modules.json"])
    assert done.exit_code == 2
    assert "is not an archive of a model for OpenSearch" in done.output
