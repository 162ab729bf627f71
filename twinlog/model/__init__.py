"""The pure part: aggregates, policies, views and sagas as tables; events, schema, errors, money, maps.

Where to begin:

* What a domain writes: ``aggregate``, ``policies``, ``view``, ``effects``, ``saga_table`` with ``saga_step``; ``forms``
  and ``functions`` refuse anything else where it is made.
* What is stored: ``event``, ``routing``, ``schema`` with ``upcasts``, ``personal``, and ``errors``, the one tree.
* A saga: ``saga`` is its state, ``saga_decider`` what happens to it, ``saga_evolution`` what state follows,
  ``saga_commands`` what that state sends; ``saga_aggregate`` makes an aggregate of these.
* Values for states: ``money``, ``maps``, ``uuid_map``, ``messages``.
* The ports of time and identity: ``clock``.
"""
