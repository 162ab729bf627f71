"""How fast the shop is: against the least program that does the same durable work, and against others' frameworks."""
