"""Events as each release wrote them, byte for byte: kept for good, and read by the code of today.

``python -m tests.corpus.record`` adds those of the release that tests/upgrade/released.txt names.
"""
