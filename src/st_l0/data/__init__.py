"""Corpora, test collections, texts by id and training data, from files, folders and the Hub."""

from st_l0.data.beir import Collection, is_own, own_documents, read_collection, write_collection
from st_l0.data.corpus import is_corpus, read_documents
from st_l0.data.lines import read_lines, read_records, write_records
from st_l0.data.positives import Positives, read_positives
from st_l0.data.records import Document
from st_l0.data.rows import Row, read_rows
from st_l0.data.sentences import choose_sentences
from st_l0.data.texts import Texts, open_texts
from st_l0.data.training_data import TrainingData, read_training_data

__all__ = [
    "Collection",
    "Document",
    "Positives",
    "Row",
    "Texts",
    "TrainingData",
    "choose_sentences",
    "is_corpus",
    "is_own",
    "open_texts",
    "own_documents",
    "read_collection",
    "read_documents",
    "read_lines",
    "read_positives",
    "read_records",
    "read_rows",
    "read_training_data",
    "write_collection",
    "write_records",
]
