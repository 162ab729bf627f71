"""Trips: the saga that makes one of a room and a payment, and the view that guests look at."""
