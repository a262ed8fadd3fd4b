"""Values that every other room speaks in: ids, states, records, jobs, actions, times."""
