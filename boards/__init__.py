"""Boards: profiles and detection. Filled by the boards issue."""
