"""The same saga in what a user would pick instead; each runs in an environment of its own, `.venv-bench`."""
