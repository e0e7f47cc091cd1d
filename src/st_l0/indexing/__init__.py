"""From a corpus to vectors, and from vectors to an index."""
