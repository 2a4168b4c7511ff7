"""Triples (subject, predicate, object) out of text: see README.md."""
