"""The ports of log, twin, lease and view store, and what runs on them: writer, relay, timers, snapshots.

Where to begin:

* The ports: ``ports`` (log), ``twin``, ``lease``, ``view_store``, ``keys``. What only some adapters can do is asked
  by further Protocols: in ``past``, ``scan``, ``correlated``, ``chain``, ``lineage``, ``saga_list``, ``view_builds``.
* A command: ``writer`` takes ``units``; ``group_commit`` decides them in a ``transaction`` over ``states``, which
  ``streams`` reads, and appends them in one batch. ``unfinished`` and ``stall`` keep it out of trouble.
* From log to twin: ``relay``, ``wire``, ``predecessors``; ``lineage`` notices a fork, ``repair`` mends it.
* Beside commands: ``timers``, ``snapshots``, ``kept_snapshots``, ``retention``, ``heads``.
* The past: ``time_travel``, ``past_rows``, ``history``, ``cuts``; old events in files: ``archive``, ``log_file``.
* Persons: ``personal`` seals and opens, ``wrapping`` encrypts the keys, ``keys`` remembers who is gone.
* What programs declared: ``declarations``, ``saga_tables``, compared at start.
"""
