"""Events of older versions in a real log, and what each place of reading makes of them."""
