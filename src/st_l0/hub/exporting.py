"""A trained checkpoint made ready for others: half the size, and the length that documents shall have."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from st_l0.encoder.fused_encoder import Layout
from st_l0.encoder.modules import encoder_modules
from st_l0.encoder.pretrained import position_limit
from st_l0.encoder.punctuation import punctuation_ids
from st_l0.encoder.sparse_encoder import SparseEncoder
from st_l0.errors import InputError
from st_l0.hub.describing import describe, read_sources, write_card, write_onnx_section
from st_l0.hub.onnx_graph import ONNX_FILE, OnnxFacts, require_onnx, write_onnx
from st_l0.utils.files import hold_folder, make_readable, replace_folder
from st_l0.utils.paths import local_name, local_path
from st_l0.utils.progress import write

_KIND = "exported model"
_LARGEST = 65504.0  # of float16
_OF_THIS_MACHINE = ("_name_or_path", "name_or_path", "is_local", "local_files_only", "cache_dir", "token")


def export(
    model: str | Path,
    output: str | Path,
    *,
    half: bool = True,
    max_seq_length: int | None = None,
    layout: Layout = "root",
    punctuation: bool = True,
    onnx: bool = False,
    evaluation: Iterable[str | Path] = (),
    card: str | Path | None = None,
    trust_remote_code: bool = False,
) -> Path:
    """Copy a checkpoint for others to use.

    Args:
        model: Folder or Hub id of a checkpoint.
        output: Folder for the copy: new, empty, or an earlier export, which is replaced as a whole.
        half: Whether the transformer's weights are rounded to float16, by at most 5e-4 of their size (those
            below 6e-5 by 3e-8). Its ``config.json`` goes on naming float32, so transformers converts on
            loading and everything is computed as before, on the rounded weights. Query weights stay as they
            are.
        max_seq_length: Tokens of a document; training on shorter texts than are searched saves time. ``None``
            leaves it as it is.
        layout: ``"root"`` has the transformer at the root and the query weights as ``idf.json``, as
            OpenSearch publishes its models and every tool reads them; ``"folders"`` is that of plain
            sentence-transformers.
        punctuation: Whether punctuation keeps its query weights; ``False`` sets them to 0, see
            `st_l0.encoder.punctuation.punctuation_ids`.
        onnx: Whether the document side is written as ``onnx/model.onnx`` too, proved against torch, see
            `st_l0.hub.onnx_graph.write_onnx`; needs the layout ``"root"``.
        evaluation: Measurements for the card, see `st_l0.hub.results.read_results`.
        card: Notes for the card (``.yaml``, see `st_l0.hub.notes.read_notes`), or a finished card (``.md``).
            Without either of the two, the card of ``model`` is kept where it is still true.
        trust_remote_code: Whether code that comes with the checkpoint may run; read it first.

    Returns:
        ``output``.

    Raises:
        InputError: ``output`` holds something else or the model itself, or another process is making it;
            there is no such checkpoint or layout, the length is more than the model has positions for, or a
            weight is too large for float16; or ONNX cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     export("models/st-l0-mini", f"{folder}/copy", max_seq_length=128).name
        'copy'
    """
    if layout not in get_args(Layout):
        raise InputError(f"layout is {layout!r:.40}; give {' or '.join(get_args(Layout))}")
    if onnx:
        require_onnx()
        if layout != "root":
            raise InputError("onnx/model.onnx is read beside a transformer at the root: give layout root")
    sources = read_sources(evaluation, card)
    with hold_folder(output, _KIND, inputs=[model]) as target:
        name = local_name(model)
        encoder = SparseEncoder.from_pretrained(
            name, device="cpu", inference_free=False, trust_remote_code=trust_remote_code
        )
        _change(encoder, name, max_seq_length, punctuation)
        data = describe(encoder, name, sources)
        data.location = str(output)
        with replace_folder(target, _KIND) as folder:
            write_copy(encoder, folder, half=half, layout=layout)
            facts = add_onnx(folder, trust_remote_code) if onnx else None
            if any(sources) or data.training:
                write_card(data, folder, sources)
            if sources.finished is None:
                write_onnx_section(data, folder, facts)
    return local_path(output)


def _change(encoder: SparseEncoder, name: str, max_seq_length: int | None, punctuation: bool) -> None:
    if max_seq_length is not None:
        transformer = encoder_modules(encoder).transformer
        most = position_limit(transformer.model.config)
        if not 8 <= max_seq_length <= most:
            raise InputError(f"max_seq_length is {max_seq_length}; {name} takes 8 to {most} tokens")
        encoder.max_seq_length = max_seq_length
    if not punctuation:
        query = encoder_modules(encoder).query
        if query is None:
            raise InputError(f"{name}: its queries run the model, they have no table: leave punctuation out")
        query.weight.data[punctuation_ids(encoder.tokenizer)] = 0


def write_copy(encoder: SparseEncoder, folder: Path, *, half: bool, layout: Layout) -> None:
    """Save an encoder for others: without what only this machine knows, and never as bfloat16.

    Args:
        encoder: What to save; its weights become float32.
        folder: Where to.
        half: Whether the transformer's weights are written as float16.
        layout: See `export`.

    Raises:
        InputError: A weight is too large for float16.
    """
    from safetensors.torch import load_file, save_file

    encoder.float()  # of rounded bfloat16 weights, others have other active dims
    encoder.save(str(folder), layout=layout)
    for file in sorted(folder.glob("**/*.safetensors")) if half else ():
        if file.parent.name.endswith("SparseStaticEmbedding"):  # the query weights
            continue
        weights = load_file(file)
        for name, weight in weights.items():
            if weight.is_floating_point() and not weight.abs().max() <= _LARGEST:
                raise InputError(
                    f"{name} is not finite or too large for float16: export it as it is (--whole)"
                )
        halved = {name: one.half() if one.is_floating_point() else one for name, one in weights.items()}
        save_file(halved, file, metadata={"format": "pt"})
    for file in folder.glob("**/*config.json"):
        _leave_out_places(file)
    make_readable(folder)


def add_onnx(folder: Path, trust_remote_code: bool) -> OnnxFacts:
    """Write the ONNX graph of a copy: of the weights that others will load; errors as `write_onnx`."""
    write(f"{ONNX_FILE}: being written and compared with torch")
    encoder = SparseEncoder.from_pretrained(
        str(folder), device="cpu", inference_free=False, trust_remote_code=trust_remote_code
    )
    facts = write_onnx(encoder, folder / ONNX_FILE)
    make_readable(folder)
    write(
        f"{ONNX_FILE}: opset {facts.opset}, largest difference to torch {facts.difference:.1e} "
        f"on {facts.texts} texts"
    )
    return facts


def _leave_out_places(file: Path) -> None:
    """Leave out what a tokenizer or a model was loaded from, and how."""
    content = json.loads(file.read_text(encoding="utf-8"))
    kept = {key: value for key, value in content.items() if key not in _OF_THIS_MACHINE}
    if kept != content:
        file.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
