"""icefall checkpoints: the LSTM transducer, loaded and ready to be traced."""
