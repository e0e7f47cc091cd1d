"""A checkpoint at half the size: weights on the disk as float16, in memory float32 as before."""

from __future__ import annotations

import shutil
from pathlib import Path

from st_l0.errors import InputError
from st_l0.files import replace_folder

_LARGEST = 65504.0  # of float16


def halve(model: str | Path, output: str | Path) -> Path:
    """Copy a checkpoint with the transformer's weights rounded to float16.

    Its ``config.json`` keeps naming float32, so that transformers converts on loading and every computation
    is as before, on weights that are up to 5e-4 of their size off. Query weights stay as they are.

    Args:
        model: Folder of a checkpoint with safetensors.
        output: Folder for the copy, new or replaced as a whole.

    Returns:
        ``output``.

    Raises:
        InputError: there is no transformer with safetensors in ``model``, or a weight is too large.
    """
    from safetensors.torch import load_file, save_file

    model, output = Path(model), Path(output)
    files = sorted(model.glob("*_Transformer/*.safetensors"))
    if not files:
        raise InputError(f"{model}: no transformer with safetensors to halve; give a saved SparseEncoder")
    with replace_folder(output) as folder:
        shutil.copytree(model, folder, dirs_exist_ok=True)
        for file in files:
            weights = load_file(file)
            for name, weight in weights.items():
                if weight.is_floating_point() and not weight.abs().max() <= _LARGEST:
                    raise InputError(f"{file}: {name} is not finite or too large for float16")
            halved = {name: one.half() if one.is_floating_point() else one for name, one in weights.items()}
            save_file(halved, folder / file.relative_to(model), metadata={"format": "pt"})
    return output
