"""A process: wiring, settings, runtime, logging."""
