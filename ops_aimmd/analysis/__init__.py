"""What a run has done: series of steps, autocorrelation, pictures."""
