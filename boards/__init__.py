"""Boards: what they are, where we are, and how they are doing."""
