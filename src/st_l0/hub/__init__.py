"""A trained checkpoint made ready for others, and published."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_l0.utils.lazy import on_first_use

if TYPE_CHECKING:
    from st_l0.hub.exporting import export
    from st_l0.hub.publishing import Published, publish

__all__ = ["Published", "export", "publish"]

# So that what only reads a card's notes does not wait for torch.
__getattr__ = on_first_use(
    __name__, {"Published": "publishing", "export": "exporting", "publish": "publishing"}
)
