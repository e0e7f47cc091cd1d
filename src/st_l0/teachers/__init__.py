"""Teachers: models that score how well a document answers a query, their ensemble, and the scores on disk."""

from st_l0.teachers.bm25_teacher import write_bm25
from st_l0.teachers.ensemble import EnsembleTeacher, min_max
from st_l0.teachers.loading import load_teacher
from st_l0.teachers.pool import QueryPool
from st_l0.teachers.stored_vectors import write_vectors
from st_l0.teachers.teacher import Teacher
from st_l0.teachers.teaching import teach

__all__ = [
    "EnsembleTeacher",
    "QueryPool",
    "Teacher",
    "load_teacher",
    "min_max",
    "teach",
    "write_bm25",
    "write_vectors",
]
