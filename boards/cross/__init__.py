"""From this machine to a board of another kind: container images, and compilers."""
