"""Many chains on one learner: shots as data, and whoever runs them, in this process, in others, or on a cluster."""
