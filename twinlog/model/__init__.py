"""The pure part: aggregates, policies, views and sagas as tables; events, schema, errors, money, maps."""
