"""One file per step; the word after `step:` in a recipe is the name of a file in this folder."""
