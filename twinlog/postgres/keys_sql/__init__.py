"""The SQL of the keys of persons, in a database of their own."""
