"""The same saga in what a user would pick instead; each runs in its own environment, `.venv-bench`."""
