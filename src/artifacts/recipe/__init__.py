"""What is declared: YAML with locations, validation, recipes."""
