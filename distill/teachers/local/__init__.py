"""`provider: local`: an embedded model as a teacher, on llama.cpp or transformers."""

from distill.teachers.local.teacher import LocalTeacher

__all__ = ["LocalTeacher"]
