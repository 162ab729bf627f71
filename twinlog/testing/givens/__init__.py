"""given / when / then on values: for deciders, policies, sagas and views."""
