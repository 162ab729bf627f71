"""Mutation testing: small changes to the library, each of which a test has to notice, or a reason excuses."""
