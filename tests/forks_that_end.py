"""A process whose forks have nothing to do."""

from tests.forks import forking

if __name__ == "__main__":
    forking(lambda: None)
