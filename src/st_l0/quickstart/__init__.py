"""The whole way on one machine, with the documentation strings of its own Python as the collection."""
