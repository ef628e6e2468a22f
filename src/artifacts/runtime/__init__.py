"""Programs and libraries that run models: sessions, child processes, the processor."""
