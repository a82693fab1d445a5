"""Engines in a process of their own: what crashes, hangs or eats memory there is killed and replaced.

The tensor crosses, in shared memory, and the answer comes back; frames, policy and decoding stay with the
caller, so that a replacement forgets nothing (``docs/decisions/0022-what-crosses-to-an-isolated-engine.md``).
"""
