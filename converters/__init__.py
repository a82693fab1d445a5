"""Converters: a trained model becomes proven artifacts. Needs the [convert] extra."""
