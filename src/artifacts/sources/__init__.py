"""Inputs from outside: files, folders, URLs, the hub; their pins."""
