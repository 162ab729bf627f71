"""The rooms of the hotel, and for whom each is held."""
