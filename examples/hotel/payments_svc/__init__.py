"""What guests have paid, by a payment provider."""
