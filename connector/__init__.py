"""Keeps a casino operator's CRM in step with the operator's database."""

__version__ = "0.1.0"
