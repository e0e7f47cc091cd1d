"""The embedded engine: exact search in one process, documents in memory or in a folder."""
