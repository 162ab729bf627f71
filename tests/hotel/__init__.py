"""A small domain of its own: guests book rooms, a saga reserves the room and confirms, confirmed guests get points."""
