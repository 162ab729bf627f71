"""The twin over NATS JetStream."""
