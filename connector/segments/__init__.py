"""Segments: what a marketer may say of players, checked, and turned into SQL. Pure: the store runs it."""
