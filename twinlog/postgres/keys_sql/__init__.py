"""The SQL of the keys of persons, in their own database."""
