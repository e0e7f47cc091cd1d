"""The encoder: documents by a masked language model, queries by a table."""
