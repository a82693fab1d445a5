"""From an engine's arrays to answers. One module per task."""
