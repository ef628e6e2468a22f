"""NeMo checkpoints: restoring them and exporting their parts."""
