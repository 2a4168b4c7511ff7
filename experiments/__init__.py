"""Whole experiments that use jaxlab: each a package that reads from top to bottom and runs with one command."""
