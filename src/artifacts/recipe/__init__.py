"""Declarations: YAML with locations, validation, recipes."""
