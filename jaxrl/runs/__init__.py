"""The host driver and what it keeps: directories, logs, checkpoints."""
