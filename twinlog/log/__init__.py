"""The ports of log, twin, lease and view store, and what runs on them: writer, relay, timers, snapshots."""
