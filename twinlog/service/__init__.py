"""A process: wiring, settings, runtime, logging.

Where to begin: ``spec`` says what a service is, ``service`` puts it together, ``process`` does so over Postgres and
JetStream, and ``runtime`` runs and stops it. ``mistakes`` is what a start refuses.
"""
