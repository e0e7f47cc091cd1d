"""A trained checkpoint made ready for others."""

from st_l0.hub.exporting import export

__all__ = ["export"]
