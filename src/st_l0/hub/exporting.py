"""A trained checkpoint made ready for others: half the size, and the length that documents shall have."""

from __future__ import annotations

from pathlib import Path

from st_l0.encoder.modules import encoder_modules
from st_l0.encoder.pretrained import position_limit
from st_l0.encoder.punctuation import punctuation_ids
from st_l0.encoder.sparse_encoder import SparseEncoder
from st_l0.errors import InputError
from st_l0.utils.files import hold_folder, replace_folder
from st_l0.utils.paths import local_name, local_path

_KIND = "exported model"
_LARGEST = 65504.0  # of float16


def export(
    model: str | Path,
    output: str | Path,
    *,
    half: bool = True,
    max_seq_length: int | None = None,
    punctuation: bool = True,
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
        punctuation: Whether punctuation keeps its query weights; ``False`` sets them to 0, see
            `st_l0.encoder.punctuation.punctuation_ids`.
        trust_remote_code: Whether code that comes with the checkpoint may run; read it first.

    Returns:
        ``output``.

    Raises:
        InputError: ``output`` holds something else or the model itself, or another process is making it;
            there is no such checkpoint, the length is more than the model has positions for, or a weight is
            too large for float16.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     export("models/st-l0-mini", f"{folder}/copy", max_seq_length=128).name
        'copy'
    """
    with hold_folder(output, _KIND, inputs=[model]) as target:
        _copy(local_name(model), target, half, max_seq_length, punctuation, trust_remote_code)
    return local_path(output)


def _copy(
    model: str,
    target: Path,
    half: bool,
    max_seq_length: int | None,
    punctuation: bool,
    trust_remote_code: bool,
) -> None:
    from safetensors.torch import load_file, save_file

    encoder = SparseEncoder.from_pretrained(
        model, device="cpu", inference_free=False, trust_remote_code=trust_remote_code
    )
    if max_seq_length is not None:
        transformer = encoder_modules(encoder).transformer
        most = position_limit(transformer.model.config)
        if not 8 <= max_seq_length <= most:
            raise InputError(f"max_seq_length is {max_seq_length}; {model} takes 8 to {most} tokens")
        encoder.max_seq_length = max_seq_length
    if not punctuation:
        query = encoder_modules(encoder).query
        if query is None:
            raise InputError(f"{model}: its queries run the model, they have no table: leave punctuation out")
        query.weight.data[punctuation_ids(encoder.tokenizer)] = 0
    with replace_folder(target, _KIND) as folder:
        encoder.save_pretrained(str(folder))
        for file in sorted(folder.glob("**/*.safetensors")) if half else ():
            if file.parent.name.endswith("SparseStaticEmbedding"):  # the query weights
                continue
            weights = load_file(file)
            for name, weight in weights.items():
                if weight.is_floating_point() and not weight.abs().max() <= _LARGEST:
                    raise InputError(f"{model}: {name} is not finite or too large for float16")
            halved = {name: one.half() if one.is_floating_point() else one for name, one in weights.items()}
            save_file(halved, file, metadata={"format": "pt"})
