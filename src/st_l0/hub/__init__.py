"""A trained checkpoint made ready for others."""
