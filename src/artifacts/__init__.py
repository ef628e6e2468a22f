"""A declarative, reproducible build for speech-model artifacts."""
