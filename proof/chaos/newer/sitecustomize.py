"""On the PYTHONPATH of a process, makes it of a newer version, which knows an event that the others do not."""

from proof.chaos.annotated import learn

learn()
