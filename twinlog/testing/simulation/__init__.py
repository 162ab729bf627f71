"""The seeded simulator: services over memory adapters, and everything that may go wrong between them."""
